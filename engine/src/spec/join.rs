//! Connects stages: which artifacts each instance takes.
//!
//! A plain reference joins: the producer's instance with the same values on the shared axes. A selection
//! (`decompose[seed=0]`) fixes an axis, a gather (`over = ["seed"]`) takes all its values. An axis of the producer
//! that is neither shared, fixed nor gathered leaves open which instance is meant, and is a mistake.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::Checked;
use super::expand::Placement;
use super::reference::position_of;
use super::stage::{InputSource, InputSpec, StageSpec};
use super::{Mistakes, names};
use crate::diagnostic::Diagnostic;
use crate::kind::InputSlot;
use crate::pipeline::InstanceId;
use crate::suggest::{hint_among, listed};
use crate::value::Origin;

/// All references between stages, looked up.
pub(super) struct Joins<'a> {
    /// By consumer.
    inputs: Vec<Vec<LookedUp<'a>>>,
}

/// An input, each of its sources with its producer.
type LookedUp<'a> = (&'a InputSpec, Vec<(&'a InputSource, usize)>);

/// The artifacts of one slot, for any point of the consumer's matrix.
pub(super) struct Slot {
    pub(super) name: String,
    sources: Vec<Source>,
}

/// How to find the instances of one producer.
struct Source {
    first: usize,
    lengths: Vec<usize>,
    /// As in [`Placement`].
    kept: Option<Arc<[usize]>>,
    /// For each axis of the producer, where its position comes from.
    picks: Vec<Pick>,
}

#[derive(Clone, Copy)]
enum Pick {
    /// This position.
    Fixed(usize),
    /// The position of the consumer on its axis with this number.
    Shared(usize),
    /// All positions.
    All,
}

impl Slot {
    /// Returns the indices of the artifacts that the instance at these coordinates takes, in axis order.
    pub(super) fn instances(&self, coordinates: &[usize]) -> Vec<usize> {
        self.sources.iter().flat_map(|source| source.instances(coordinates)).collect()
    }
}

impl Source {
    /// Returns the instances at these coordinates of the consumer; of a matrix that leaves out points, those it keeps.
    fn instances(&self, coordinates: &[usize]) -> Vec<usize> {
        let mut numbers = vec![0];
        for (pick, length) in self.picks.iter().zip(&self.lengths) {
            let positions = match pick {
                Pick::Fixed(position) => *position..*position + 1,
                Pick::Shared(axis) => coordinates[*axis]..coordinates[*axis] + 1,
                Pick::All => 0..*length,
            };
            numbers = numbers
                .iter()
                .flat_map(|number| positions.clone().map(move |position| number * length + position))
                .collect();
        }
        let index = |number: usize| match &self.kept {
            None => Some(number),
            Some(kept) => kept.binary_search(&number).ok(),
        };
        numbers.into_iter().filter_map(index).map(|number| self.first + number).collect()
    }
}

impl<'a> Joins<'a> {
    /// Looks up every reference and checks slots and kinds.
    pub(super) fn new(checked: &'a Checked, mistakes: &mut Mistakes) -> Self {
        let by_name: BTreeMap<&str, usize> =
            checked.stages.iter().enumerate().map(|(position, stage)| (stage.name.as_str(), position)).collect();
        let inputs = checked
            .stages
            .iter()
            .map(|stage| {
                check_slots(stage, mistakes);
                stage.inputs.iter().map(|input| (input, producers(stage, input, checked, &by_name, mistakes))).collect()
            })
            .collect();
        Self { inputs }
    }

    /// Returns consumer, producer and place of every reference.
    pub(super) fn edges(&self) -> impl Iterator<Item = (usize, usize, Option<&Origin>)> {
        self.inputs.iter().enumerate().flat_map(|(consumer, inputs)| {
            inputs.iter().flat_map(move |(_, sources)| {
                sources.iter().map(move |(source, producer)| (consumer, *producer, source.origin.as_ref()))
            })
        })
    }

    /// Returns the slots of a stage.
    pub(super) fn of(
        &self,
        stage: usize,
        placement: &Placement,
        placements: &[Option<Placement>],
        checked: &Checked,
        mistakes: &mut Mistakes,
    ) -> Vec<Slot> {
        let joiner = Joiner { consumer: &checked.stages[stage], placement, checked };
        self.inputs[stage]
            .iter()
            .map(|(input, sources)| {
                let sources = sources
                    .iter()
                    .filter_map(|(source, producer)| {
                        let producer_placement = placements[*producer].as_ref()?;
                        joiner.source(input, source, *producer, producer_placement, mistakes)
                    })
                    .collect();
                Slot { name: input.slot.clone(), sources }
            })
            .collect()
    }
}

/// Returns the slot of a kind that an input named `name` fills; a slot called `*` takes inputs of any name.
fn slot_of<'k>(slots: &'k [InputSlot], name: &str) -> Option<&'k InputSlot> {
    slots.iter().find(|slot| slot.name == name).or_else(|| slots.iter().find(|slot| slot.name == "*"))
}

fn check_slots(stage: &StageSpec, mistakes: &mut Mistakes) {
    let Some(kind) = &stage.kind else { return };
    let info = kind.info();
    for input in &stage.inputs {
        // The name of a slot that takes any becomes a folder's name.
        if info.inputs.iter().any(|slot| slot.name == "*")
            && let Some(mistake) = names::mistake_in_name(&input.slot)
        {
            let message = format!("input `{}` of stage `{}`: {mistake}", input.slot, stage.name);
            mistakes.push(Diagnostic::new(message).at(input.key_origin.as_ref()));
        }
        let Some(slot) = slot_of(info.inputs, &input.slot) else {
            let known = info.inputs.iter().map(|slot| slot.name);
            let hint = hint_among(&input.slot, "known inputs", known)
                .unwrap_or_else(|| format!("`{}` takes no inputs", info.name));
            let message = format!("`{}` has no input `{}`", info.name, input.slot);
            mistakes.push(Diagnostic::new(message).at(input.key_origin.as_ref()).hint(hint));
            continue;
        };
        if input.is_many && !slot.many {
            let message = format!("input `{}` of `{}` takes exactly one artifact, found a list", slot.name, info.name);
            let hint = "name one stage: `\"STAGE\"` or `\"STAGE[AXIS=VALUE]\"`";
            mistakes.push(Diagnostic::new(message).at(input.origin.as_ref()).hint(hint));
        }
    }
    let is_filled = |slot: &InputSlot| stage.inputs.iter().any(|input| input.slot == slot.name);
    for slot in info.inputs.iter().filter(|slot| slot.required && slot.name != "*" && !is_filled(slot)) {
        let message = format!("stage `{}` lacks the input `{}` that `{}` needs", stage.name, slot.name, info.name);
        let accepts = slot.accepts.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(" or ");
        let hint = format!("add `inputs = {{ {} = \"STAGE\" }}` with a stage of kind {accepts}", slot.name);
        mistakes.push(Diagnostic::new(message).at(stage.origin.as_ref()).hint(hint));
    }
}

fn producers<'a>(
    stage: &StageSpec,
    input: &'a InputSpec,
    checked: &Checked,
    by_name: &BTreeMap<&str, usize>,
    mistakes: &mut Mistakes,
) -> Vec<(&'a InputSource, usize)> {
    let slot = stage.kind.as_ref().and_then(|kind| slot_of(kind.info().inputs, &input.slot));
    let mut found = Vec::new();
    for source in &input.sources {
        let name = source.reference.stage.as_str();
        let Some(&producer) = by_name.get(name) else {
            let hint = hint_among(name, "known stages", by_name.keys().copied());
            mistakes.push(
                Diagnostic::new(format!("there is no stage `{name}`")).at(source.origin.as_ref()).hint_if_any(hint),
            );
            continue;
        };
        found.push((source, producer));
        let kind = checked.stages[producer].kind.as_ref().map(|kind| kind.info().name);
        if let (Some(slot), Some(kind)) = (slot, kind)
            && !slot.accepts.iter().any(|pattern| accepts(pattern, kind))
        {
            let accepted = slot.accepts.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(" or ");
            let message = format!(
                "input `{}` of stage `{}` takes an artifact of kind {accepted}, but `{name}` makes one of kind `{kind}`",
                input.slot, stage.name
            );
            let fitting = checked.stages.iter().filter(|other| {
                let kind = other.kind.as_ref().map(|kind| kind.info().name);
                other.name != stage.name
                    && kind.is_some_and(|kind| slot.accepts.iter().any(|pattern| accepts(pattern, kind)))
            });
            let fitting = listed(fitting.map(|stage| stage.name.as_str()));
            let hint = (!fitting.is_empty()).then(|| format!("stages that fit: {fitting}"));
            mistakes.push(Diagnostic::new(message).at(source.origin.as_ref()).hint_if_any(hint));
        }
    }
    found
}

/// Returns whether `pattern` (`train.tms`, `train.*` or `*`) covers the kind.
fn accepts(pattern: &str, kind: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(family) => kind.starts_with(family),
        None => pattern == kind,
    }
}

struct Joiner<'a> {
    consumer: &'a StageSpec,
    placement: &'a Placement,
    checked: &'a Checked,
}

impl Joiner<'_> {
    /// Returns how to find the producer's instances, or nothing after writing down why that is impossible.
    fn source(
        &self,
        input: &InputSpec,
        source: &InputSource,
        producer: usize,
        placement: &Placement,
        mistakes: &mut Mistakes,
    ) -> Option<Source> {
        let producer_name = self.checked.stages[producer].name.as_str();
        let axis_name = |axis: usize| self.checked.axes[axis].name.as_str();
        let producer_axes: Vec<_> = placement.axes.iter().map(|axis| axis_name(*axis)).collect();
        let before = mistakes.len();
        let written = source.reference.selection.iter().map(|(axis, _)| (axis, source.origin.as_ref()));
        for (axis, origin) in written.chain(source.over.iter().map(|(axis, origin)| (axis, origin.as_ref()))) {
            if !producer_axes.contains(&axis.as_str()) {
                let hint = hint_among(axis, &format!("axes of `{producer_name}`"), producer_axes.iter().copied())
                    .unwrap_or_else(|| format!("`{producer_name}` has no matrix"));
                let message = format!("stage `{producer_name}` does not run over axis `{axis}`");
                mistakes.push(Diagnostic::new(message).at(origin).hint(hint));
            }
        }
        let mut picks = Vec::with_capacity(placement.axes.len());
        for &axis in &placement.axes {
            let name = axis_name(axis);
            let fixed = source.reference.selection.iter().find(|(fixed, _)| fixed == name);
            let gathered = source.over.iter().find(|(over, _)| over == name);
            match (fixed, gathered) {
                (Some(_), Some((_, origin))) => {
                    let message = format!("axis `{name}` is both fixed and gathered over");
                    mistakes.push(Diagnostic::new(message).at(origin.as_ref()));
                }
                (Some((_, value)), None) => {
                    let values = self.checked.axes[axis].values.iter().map(|value| value.text.as_str());
                    match position_of(value, values.clone()) {
                        Some(position) => picks.push(Pick::Fixed(position)),
                        None => {
                            let message = format!("axis `{name}` has no value `{value}`");
                            let hint = format!("its values: {}", listed(values));
                            mistakes.push(Diagnostic::new(message).at(source.origin.as_ref()).hint(hint));
                        }
                    }
                }
                (None, Some(_)) => picks.push(Pick::All),
                (None, None) => match self.placement.axes.iter().position(|shared| *shared == axis) {
                    Some(position) => picks.push(Pick::Shared(position)),
                    None => mistakes.push(self.ambiguous(input, source, producer_name, axis)),
                },
            }
        }
        if mistakes.len() > before {
            return None;
        }
        let Placement { first, lengths, kept, .. } = placement;
        let found = Source { first: *first, lengths: lengths.clone(), kept: kept.clone(), picks };
        if kept.is_some() {
            self.check_points(input, source, producer_name, &found, mistakes);
        }
        (mistakes.len() == before).then_some(found)
    }

    /// Writes down the first instance of the consumer whose input a sparse matrix has left out.
    fn check_points(
        &self,
        input: &InputSpec,
        source: &InputSource,
        producer: &str,
        found: &Source,
        mistakes: &mut Mistakes,
    ) {
        let lacking = (0..self.placement.count())
            .map(|number| self.placement.coordinates(number))
            .find(|coordinates| found.instances(coordinates).is_empty());
        let Some(coordinates) = lacking else { return };
        let axes = self.placement.axes.iter().zip(coordinates).map(|(axis, position)| {
            let axis = &self.checked.axes[*axis];
            (axis.name.clone(), axis.values[position].text.clone())
        });
        let instance = InstanceId { stage: self.consumer.name.clone(), axes: axes.collect() };
        let message =
            format!("input `{}` of `{instance}`: the matrix of `{producer}` leaves out that point", input.slot);
        let hint = format!("leave the point out of `{}` too, or let `{producer}` have it", self.consumer.name);
        mistakes.push(Diagnostic::new(message).at(source.origin.as_ref()).hint(hint));
    }

    fn ambiguous(&self, input: &InputSpec, source: &InputSource, producer: &str, axis: usize) -> Diagnostic {
        let axis = &self.checked.axes[axis];
        let (consumer, name) = (&self.consumer.name, &axis.name);
        let count = axis.values.len();
        let value = axis.values.first().map_or("VALUE", |value| value.text.as_str());
        let message = format!(
            "input `{}` of stage `{consumer}` must choose among the {count} instances of `{producer}` on axis `{name}`",
            input.slot
        );
        let takes_many = self
            .consumer
            .kind
            .as_ref()
            .and_then(|kind| slot_of(kind.info().inputs, &input.slot))
            .is_some_and(|slot| slot.many);
        let mut diagnostic = Diagnostic::new(message)
            .at(source.origin.as_ref())
            .hint(format!("choose one: `\"{producer}[{name}={value}]\"`"));
        if takes_many {
            diagnostic = diagnostic.hint(format!("or take all: `{{ from = \"{producer}\", over = [\"{name}\"] }}`"));
        }
        diagnostic.hint(format!("or run `{consumer}` once for each: add `\"{name}\"` to its `matrix`"))
    }
}
