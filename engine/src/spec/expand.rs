//! Makes instances out of stages: matrix, inputs, parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::axes::{Axis, AxisValue};
use super::check::Checked;
use super::overrides::Variables;
use super::stage::StageSpec;
use super::substitute::{self, Substitution};
use super::sweep::Variants;
use super::{Files, Mistakes, join};
use crate::diagnostic::Diagnostic;
use crate::graph::Needs;
use crate::kind::StageKind;
use crate::outside::{Outside, OutsideFiles, Seen};
use crate::params::Params;
use crate::pipeline::{Instance, InstanceId, Source};
use crate::value::{Data, DecodeError, Entry, Value};

/// How many instances a pipeline may have: a bound against matrices that multiply by accident.
const MAX_INSTANCES: usize = 1_000_000;

/// Where the instances of a stage lie, and the points of its matrix.
pub(super) struct Placement {
    /// The index of its first instance; the others follow.
    pub(super) first: usize,
    /// Positions in the pipeline's list of axes, the slowest first.
    pub(super) axes: Vec<usize>,
    /// How many values each of them has.
    pub(super) lengths: Vec<usize>,
    /// The numbers, counted over all points, of those that the matrix keeps; all when absent. Sorted.
    pub(super) kept: Option<Arc<[usize]>>,
}

impl Placement {
    /// Returns the number of instances.
    pub(super) fn count(&self) -> usize {
        self.kept.as_ref().map_or_else(|| self.lengths.iter().product(), |kept| kept.len())
    }

    /// Returns the positions on the axes of the instance with this number.
    pub(super) fn coordinates(&self, number: usize) -> Vec<usize> {
        coordinates(&self.lengths, self.kept.as_ref().map_or(number, |kept| kept[number]))
    }
}

/// What parameters may refer to.
pub(super) struct Around<'a> {
    pub(super) variables: &'a Variables,
    pub(super) sources: &'a [Source],
    pub(super) files: &'a dyn Files,
    pub(super) seen: &'a Seen,
}

/// Returns the positions on axes of these lengths of the point with this number, the last axis fastest.
fn coordinates(lengths: &[usize], mut number: usize) -> Vec<usize> {
    let mut coordinates = vec![0; lengths.len()];
    for (coordinate, length) in coordinates.iter_mut().zip(lengths).rev() {
        *coordinate = number % length;
        number /= length;
    }
    coordinates
}

/// Returns the instances, producers first. Complete only if no mistake was found.
pub(super) fn expand(checked: &Checked, around: &Around<'_>, mistakes: &mut Mistakes) -> Vec<Instance> {
    let joins = join::Joins::new(checked, mistakes);
    let mut needs = Needs::new(checked.stages.len());
    for (consumer, producer, _) in joins.edges() {
        needs.add(consumer, producer);
    }
    let order = needs.order().unwrap_or_else(|cycles| {
        mistakes.extend(cycles.iter().map(|cycle| cycle_mistake(cycle, checked, &joins)));
        (0..checked.stages.len()).collect()
    });
    let Some(placements) = place(checked, &order, mistakes) else { return Vec::new() };
    let mut used = BTreeSet::new();
    let mut instances = Vec::new();
    for stage in order {
        let spec = &checked.stages[stage];
        let Some(placement) = &placements[stage] else {
            check_params_once(spec, mistakes);
            continue;
        };
        let slots = joins.of(stage, placement, &placements, checked, mistakes);
        // Sparse matrices leave some instances with fewer artifacts than others; what fits the most fits all.
        let most = |slot: &join::Slot| {
            let counts = (0..placement.count()).map(|number| slot.instances(&placement.coordinates(number)).len());
            counts.max().unwrap_or(0)
        };
        let takes_any = |kind: &Arc<dyn StageKind>| kind.info().inputs.iter().any(|slot| slot.name == "*");
        let counted = slots.iter().filter(|_| spec.kind.as_ref().is_some_and(takes_any));
        let inputs = counted.map(|slot| (slot.name.clone(), most(slot))).collect();
        let finder = Finder { checked, around, inputs };
        let params = finder.params_of(spec, placement, &mut used, mistakes);
        // With mistakes the pipeline is never handed out, so nothing is assembled any more.
        let (Some(kind), true) = (&spec.kind, mistakes.is_empty()) else { continue };
        for (number, (params, files)) in params.into_iter().enumerate() {
            let coordinates = placement.coordinates(number);
            let axes = point(placement, &coordinates, &checked.axes)
                .into_iter()
                .map(|(axis, value)| (axis.to_owned(), value.text.clone()))
                .collect();
            let inputs: BTreeMap<String, Vec<usize>> =
                slots.iter().map(|slot| (slot.name.clone(), slot.instances(&coordinates))).collect();
            let params = labelled(params, kind.labelled(), &inputs, &instances);
            instances.push(Instance {
                id: InstanceId { stage: spec.name.clone(), axes },
                kind: kind.clone(),
                params,
                inputs,
                files,
                resources: spec.resources.clone(),
                policy: spec.policy,
                tolerances: spec.tolerances.clone(),
            });
        }
    }
    for (name, entry) in around.variables.0.iter().filter(|(name, _)| !used.contains(*name)) {
        // Parameters of an unknown kind or broken matrix were not looked at; do not blame the argument for that.
        if mistakes.is_empty()
            || !checked
                .stages
                .iter()
                .any(|stage| stage.kind.is_none() || stage.matrix.is_none() || stage.params.is_none())
        {
            let message = format!("no parameter asks for `${{{name}}}`");
            let hint = "a path has at least two parts: `stage.NAME.params.KEY=VALUE`";
            mistakes.push(Diagnostic::new(message).at(entry.place()).hint(hint));
        }
    }
    instances
}

/// Returns the parameters with what tells the artifacts of these slots apart: the values of their producers' axes, unless
/// the pipeline says something else. So it is part of the key, as everything that a stage may write into a file.
fn labelled(params: Params, slots: &[&str], inputs: &BTreeMap<String, Vec<usize>>, producers: &[Instance]) -> Params {
    const LABELS: &str = "labels";
    if slots.is_empty() {
        return params;
    }
    let mut value = params.value();
    let of = |data| Value { data, origin: None };
    let entry = |data| Entry { key_origin: None, value: of(data) };
    let Data::Table(table) = &mut value.data else { return params };
    let labels = table.entry(LABELS.to_owned()).or_insert_with(|| entry(Data::Table(BTreeMap::new())));
    let Data::Table(labels) = &mut labels.value.data else { return params };
    for slot in slots {
        let Some(inputs) = inputs.get(*slot) else { continue };
        let label = |producer: &usize| {
            let axes = producers[*producer].id.axes.iter().map(|(axis, value)| format!("{axis} = {value}"));
            of(Data::String(axes.collect::<Vec<_>>().join(", ")))
        };
        let list = || entry(Data::Array(inputs.iter().map(label).collect()));
        labels.entry((*slot).to_owned()).or_insert_with(list);
    }
    Params::of(&value).expect("labels are texts")
}

/// Gives every stage its range of instances, in the given order.
fn place(checked: &Checked, order: &[usize], mistakes: &mut Mistakes) -> Option<Vec<Option<Placement>>> {
    let mut placements: Vec<Option<Placement>> = checked.stages.iter().map(|_| None).collect();
    let mut first: usize = 0;
    for &stage in order {
        let spec = &checked.stages[stage];
        let Some(matrix) = &spec.matrix else { continue };
        let axes = matrix.axes.clone();
        let lengths: Vec<_> = axes.iter().map(|axis| checked.axes[*axis].values.len()).collect();
        let all = lengths.iter().try_fold(1_usize, |count, length| count.checked_mul(*length));
        let kept: Option<Arc<[usize]>> = all
            .filter(|all| matrix.is_sparse() && *all <= MAX_INSTANCES)
            .map(|all| (0..all).filter(|number| matrix.has(&coordinates(&lengths, *number))).collect());
        if kept.as_ref().is_some_and(|kept| kept.is_empty()) && lengths.iter().all(|length| *length > 0) {
            let message = format!("`matrix` of stage `{}` leaves no point", spec.name);
            mistakes.push(Diagnostic::new(message).at(spec.origin.as_ref()).hint("loosen `include` or `exclude`"));
        }
        let count = kept.as_ref().map_or(all, |kept| Some(kept.len()));
        let total = count.and_then(|count| first.checked_add(count)).filter(|total| *total <= MAX_INSTANCES);
        let Some(total) = total else {
            let message = format!("stage `{}` brings the pipeline to more than {MAX_INSTANCES} instances", spec.name);
            mistakes.push(Diagnostic::new(message).at(spec.origin.as_ref()));
            return None;
        };
        placements[stage] = Some(Placement { first, axes, lengths, kept });
        first = total;
    }
    Some(placements)
}

fn point<'a>(placement: &Placement, coordinates: &[usize], axes: &'a [Axis]) -> BTreeMap<&'a str, &'a AxisValue> {
    let values = placement.axes.iter().zip(coordinates);
    values.map(|(axis, position)| (axes[*axis].name.as_str(), &axes[*axis].values[*position])).collect()
}

/// Finds the parameters of the instances of one stage.
struct Finder<'a> {
    checked: &'a Checked,
    around: &'a Around<'a>,
    /// How many artifacts each input takes at most, if the kind takes inputs of any name.
    inputs: BTreeMap<String, usize>,
}

impl Finder<'_> {
    /// Returns the resolved parameters of every instance of a stage, and the files they refer to.
    fn params_of(
        &self,
        spec: &StageSpec,
        placement: &Placement,
        used: &mut BTreeSet<String>,
        mistakes: &mut Mistakes,
    ) -> Vec<(Params, OutsideFiles)> {
        let (Some(kind), Some(params)) = (&spec.kind, &spec.params) else { return Vec::new() };
        let count = placement.count();
        // Resolving is the slow part; instances that cannot differ share it.
        let variants = spec.variants.as_ref();
        let differ = substitute::has_placeholders(params) || variants.is_some();
        let mut resolved = Vec::with_capacity(count);
        for number in 0..if differ { count } else { count.min(1) } {
            let coordinates = placement.coordinates(number);
            let mut params = match variants {
                None => params.clone(),
                Some(Variants { axis, params }) => {
                    let on_axis = placement.axes.iter().position(|other| other == axis);
                    params[coordinates[on_axis.expect("a varied stage runs over the sweep")]].clone()
                }
            };
            let before = mistakes.len();
            let point = point(placement, &coordinates, &self.checked.axes);
            let mut substitution = Substitution {
                stage: &spec.name,
                point: &point,
                axes: &self.checked.axes,
                variables: self.around.variables,
                used,
                replaced: Vec::new(),
            };
            substitution.apply(&mut params, mistakes);
            let replaced = substitution.replaced;
            if mistakes.len() > before {
                return Vec::new();
            }
            let outside = Outside {
                files: self.around.files,
                sources: self.around.sources,
                written: &params,
                inputs: &self.inputs,
                seen: self.around.seen,
            };
            match kind.resolve_with(&params, &outside) {
                Ok((params, files)) => {
                    let params = Params::of(&params).expect("typed parameters hold no NaN");
                    resolved.push((params, files));
                }
                Err(errors) => {
                    mistakes.extend(errors.into_iter().map(|error| param_mistake(&spec.name, error, &replaced)));
                }
            }
        }
        if !differ && resolved.len() == 1 {
            return vec![resolved.remove(0); count];
        }
        resolved
    }
}

/// Looks for mistakes in the parameters of a stage whose matrix is wrong, as far as they do not depend on it.
fn check_params_once(spec: &StageSpec, mistakes: &mut Mistakes) {
    if let (Some(kind), Some(params)) = (&spec.kind, &spec.params)
        && !substitute::has_placeholders(params)
        && let Err(errors) = kind.resolve(params)
    {
        mistakes.extend(errors.into_iter().map(|error| param_mistake(&spec.name, error, &[])));
    }
}

fn param_mistake(stage: &str, error: DecodeError, replaced: &[(crate::value::Origin, String, Value)]) -> Diagnostic {
    let what = if error.path.is_empty() { "parameters".to_owned() } else { format!("parameter `{}`", error.path) };
    let mut diagnostic = Diagnostic::new(format!("{what} of stage `{stage}`: {}", error.message))
        .at(error.origin.as_ref())
        .hint_if_any(error.hint);
    for (_, name, value) in replaced.iter().filter(|(origin, ..)| Some(origin) == error.origin.as_ref()) {
        diagnostic = diagnostic
            .hint(format!("`${{{name}}}` stands for `{value}` here"))
            .label(value.origin.as_ref(), "from here");
    }
    diagnostic
}

fn cycle_mistake(cycle: &[usize], checked: &Checked, joins: &join::Joins<'_>) -> Diagnostic {
    const SHOWN: usize = 20;
    let name = |stage: usize| checked.stages[stage].name.as_str();
    let hops: Vec<_> = cycle.iter().copied().zip(cycle.iter().copied().cycle().skip(1)).collect();
    let mut path: Vec<_> = cycle.iter().take(SHOWN).map(|stage| format!("`{}`", name(*stage))).collect();
    if cycle.len() > SHOWN {
        path.push(format!("{} more", cycle.len() - SHOWN));
    }
    path.push(format!("`{}`", name(cycle[0])));
    let mut diagnostic = Diagnostic::new(format!("stages wait for one another in a cycle: {}", path.join(" → ")));
    for (consumer, producer) in hops.into_iter().take(SHOWN) {
        let origin = joins.edges().find(|edge| (edge.0, edge.1) == (consumer, producer)).and_then(|edge| edge.2);
        diagnostic = diagnostic.label(origin, format!("`{}` takes `{}`", name(consumer), name(producer)));
    }
    diagnostic.hint("remove one of these inputs")
}
