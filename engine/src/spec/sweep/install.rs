//! Gives the points of a sweep to the stages of a pipeline.

use std::collections::{BTreeMap, BTreeSet};

use super::points::short_names;
use super::{Home, Step, SweepSpec, SweptKey, Variants, written};
use crate::diagnostic::Diagnostic;
use crate::pipeline::{Sweep, SweepPoint};
use crate::spec::Mistakes;
use crate::spec::axes::{Axis, AxisValue};
use crate::spec::check::Checked;
use crate::spec::stage::StageSpec;
use crate::suggest::hint_among;
use crate::value::{Data, Entry, KIND, Value};

impl SweepSpec {
    /// Adds the sweep's axis, gives it to the stages concerned, and works out their parameters at each point.
    pub(in crate::spec) fn install(self, checked: &mut Checked, mistakes: &mut Mistakes) -> Option<Sweep> {
        let what = format!("sweep `{}`", self.name);
        if checked.axes.iter().any(|axis| axis.name == self.name) {
            let message = format!("{what} is called like an axis, and its points become an axis of that name");
            mistakes.push(Diagnostic::new(message).at(self.origin.as_ref()).hint("give it another name"));
            return None;
        }
        let before = mistakes.len();
        for key in &self.keys {
            if let Some(mistake) = unknown_home(key, checked, &what) {
                mistakes.push(mistake);
            }
        }
        if mistakes.len() > before {
            return None;
        }
        let axis = checked.axes.len();
        let values = self.points.iter().map(|(name, _)| AxisValue {
            text: name.clone(),
            value: Value { data: Data::String(name.clone()), origin: self.origin.clone() },
        });
        checked.axes.push(Axis { name: self.name.clone(), values: values.collect() });
        for stage in self.concerned(checked) {
            let spec = &mut checked.stages[stage];
            if let Some(matrix) = &mut spec.matrix {
                matrix.axes.push(axis);
            }
            let keys: Vec<usize> = (0..self.keys.len()).filter(|key| self.reaches(*key, spec)).collect();
            let (Some(params), false) = (&spec.params, keys.is_empty()) else { continue };
            let variant = |(_, values): &(String, Vec<Value>)| {
                let mut params = params.clone();
                for &key in &keys {
                    let SweptKey { steps, origin, .. } = &self.keys[key];
                    put(&mut params, steps, values[key].clone()).map_err(|message| {
                        Diagnostic::new(format!("`{}` of {what}: {message}", written(steps))).at(origin.as_ref())
                    })?;
                }
                Ok(params)
            };
            match self.points.iter().map(variant).collect::<Result<_, Diagnostic>>() {
                Ok(params) => spec.variants = Some(Variants { axis, params }),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let keys = short_names(&self.keys);
        let points = self.points.into_iter().map(|(name, values)| SweepPoint { name, values }).collect();
        Some(Sweep { name: self.name, keys, points })
    }

    /// Returns whether a key varies a parameter of the stage: its own, or one of a shared table that it does not set.
    fn reaches(&self, key: usize, stage: &StageSpec) -> bool {
        let SweptKey { home, steps, .. } = &self.keys[key];
        match home {
            Home::Stage(name) => *name == stage.name,
            Home::Shared(table) => {
                stage.with.contains(table) && !stage.own_params.as_ref().is_some_and(|own| holds(own, steps))
            }
        }
    }

    /// Returns the stages whose parameters vary and those that take from them, directly or not.
    fn concerned(&self, checked: &Checked) -> BTreeSet<usize> {
        let stages = &checked.stages;
        let mut consumers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (position, stage) in stages.iter().enumerate() {
            for source in stage.inputs.iter().flat_map(|input| &input.sources) {
                consumers.entry(&source.reference.stage).or_default().push(position);
            }
        }
        let varies = |stage: &usize| (0..self.keys.len()).any(|key| self.reaches(key, &stages[*stage]));
        let mut left: Vec<usize> = (0..stages.len()).filter(varies).collect();
        let mut concerned = BTreeSet::new();
        while let Some(stage) = left.pop() {
            if concerned.insert(stage) {
                left.extend(consumers.get(stages[stage].name.as_str()).into_iter().flatten());
            }
        }
        concerned
    }
}

fn unknown_home(key: &SweptKey, checked: &Checked, what: &str) -> Option<Diagnostic> {
    let (thing, name, known): (_, _, Vec<&str>) = match &key.home {
        Home::Stage(name) => ("stage", name, checked.stages.iter().map(|stage| stage.name.as_str()).collect()),
        Home::Shared(name) => {
            let mut tables: Vec<&str> =
                checked.stages.iter().flat_map(|stage| &stage.with).map(String::as_str).collect();
            tables.sort_unstable();
            tables.dedup();
            ("shared parameter table that a stage takes", name, tables)
        }
    };
    if known.contains(&name.as_str()) {
        return None;
    }
    let hint = hint_among(name, "known names", known.iter().copied());
    Some(Diagnostic::new(format!("{what}: there is no {thing} `{name}`")).at(key.origin.as_ref()).hint_if_any(hint))
}

/// Returns whether a table has a value at the path.
fn holds(value: &Value, steps: &[Step]) -> bool {
    let Some((step, rest)) = steps.split_first() else { return true };
    match (step, &value.data) {
        (Step::Key(key), Data::Table(entries)) => entries.get(key).is_some_and(|entry| holds(&entry.value, rest)),
        (Step::Kind(kind), Data::Array(items)) => {
            items.iter().any(|item| kind_of(item) == Some(kind) && holds(item, rest))
        }
        _ => false,
    }
}

/// Returns what names the variant: the key `kind` of a table, or a text by itself.
fn kind_of(item: &Value) -> Option<&str> {
    item.as_str().or_else(|| item.get(KIND)?.as_str())
}

/// Puts a value at a path, making tables and items on the way.
fn put(at: &mut Value, steps: &[Step], value: Value) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *at = value;
        return Ok(());
    };
    let origin = value.origin.clone();
    let table = || Value { data: Data::Table(BTreeMap::new()), origin: origin.clone() };
    let found = at.described();
    match (step, &mut at.data) {
        (Step::Key(key), Data::Table(entries)) => {
            // A list is begun where items of some kind follow.
            let new = || match rest.first() {
                Some(Step::Kind(_)) => Value { data: Data::Array(Vec::new()), origin: origin.clone() },
                _ => table(),
            };
            let entry =
                entries.entry(key.clone()).or_insert_with(|| Entry { key_origin: origin.clone(), value: new() });
            put(&mut entry.value, rest, value)
        }
        (Step::Kind(kind), Data::Array(items)) => {
            let of_kind = |item: &Value| kind_of(item) == Some(kind);
            if items.iter().filter(|item| of_kind(item)).count() > 1 {
                return Err(format!(
                    "the pipeline has two items of kind `{kind}` there, and it is not clear which is meant"
                ));
            }
            let position = items.iter().position(of_kind).unwrap_or_else(|| {
                items.push(Value { data: Data::String(kind.clone()), origin: origin.clone() });
                items.len() - 1
            });
            let item = &mut items[position];
            if item.as_str().is_some() {
                // A kind without fields gets some.
                let entry = Entry { key_origin: origin.clone(), value: item.clone() };
                *item = Value { data: Data::Table(BTreeMap::from([(KIND.to_owned(), entry)])), origin };
            }
            put(item, rest, value)
        }
        (Step::Key(key), _) => Err(format!("the pipeline has {found} there, without a key `{key}`")),
        (Step::Kind(kind), _) => {
            Err(format!("the pipeline has {found} there, not a list with an item of kind `{kind}`"))
        }
    }
}
