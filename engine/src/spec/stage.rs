//! `[stage.NAME]`: one stage as written, its names looked up.

use std::sync::Arc;

use super::check::Surroundings;
use super::read::{self, Entries};
use super::reference::{Reference, position_of};
use super::sweep::Variants;
use super::{Mistakes, merge, names, resources, tolerances};
use crate::diagnostic::Diagnostic;
use crate::kind::StageKind;
use crate::pipeline::{Allowance, Policy, Resources};
use crate::suggest::{hint_among, listed};
use crate::value::{Data, Entry, Origin, Value};

/// A stage before its matrix is expanded.
pub(super) struct StageSpec {
    pub(super) name: String,
    /// Where the stage begins.
    pub(super) origin: Option<Origin>,
    /// What it uses; nothing if that is missing or unknown.
    pub(super) kind: Option<Arc<dyn StageKind>>,
    /// Positions of its axes in the pipeline's list, in the order of `matrix`; nothing if one is wrong.
    pub(super) matrix: Option<Matrix>,
    /// Its inputs, by slot.
    pub(super) inputs: Vec<InputSpec>,
    /// `with` and `params` merged, `${…}` not yet replaced; nothing if a table is missing or wrong.
    pub(super) params: Option<Value>,
    /// The shared tables it takes, and if there are any, `params` alone.
    pub(super) with: Vec<String>,
    pub(super) own_params: Option<Value>,
    /// What `params` is at the points of a sweep.
    pub(super) variants: Option<Variants>,
    pub(super) resources: Resources,
    pub(super) policy: Policy,
    pub(super) tolerances: Vec<Allowance>,
}

/// The points a stage is repeated at.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    /// Positions of its axes in the pipeline's list, the slowest first.
    pub(super) axes: Vec<usize>,
    /// Only points that one of these describes, if there are any.
    pub(super) include: Vec<PointPattern>,
    /// No points that one of these describes.
    pub(super) exclude: Vec<PointPattern>,
}

/// Some axes' positions: describes every point that has them.
#[derive(Debug)]
pub(super) struct PointPattern(Vec<(usize, usize)>);

impl Matrix {
    /// Returns whether the stage has an instance at this point, given by its positions on the axes.
    pub(super) fn has(&self, coordinates: &[usize]) -> bool {
        let at = |axis: usize| self.axes.iter().position(|other| *other == axis).map(|index| coordinates[index]);
        let fits = |pattern: &PointPattern| pattern.0.iter().all(|(axis, position)| at(*axis) == Some(*position));
        (self.include.is_empty() || self.include.iter().any(fits)) && !self.exclude.iter().any(fits)
    }

    /// Returns whether it leaves out any points.
    pub(super) fn is_sparse(&self) -> bool {
        !(self.include.is_empty() && self.exclude.is_empty())
    }
}

/// What a stage takes in one slot.
pub(super) struct InputSpec {
    pub(super) slot: String,
    /// The slot's name.
    pub(super) key_origin: Option<Origin>,
    /// The whole value.
    pub(super) origin: Option<Origin>,
    pub(super) sources: Vec<InputSource>,
    /// Whether it was written as a list or gathers.
    pub(super) is_many: bool,
}

/// One reference to a producer.
pub(super) struct InputSource {
    pub(super) reference: Reference,
    /// The axes gathered over, each with its place; none unless written as `{ from = …, over = […] }`.
    pub(super) over: Vec<(String, Option<Origin>)>,
    pub(super) origin: Option<Origin>,
}

const KEYS: [&str; 9] = ["uses", "inputs", "matrix", "with", "params", "resources", "retries", "timeout", "tolerances"];

static NO_ENTRIES: Entries = Entries::new();

/// Returns the stage that `entry` holds.
pub(super) fn stage(name: &str, entry: &Entry, around: &Surroundings<'_>, mistakes: &mut Mistakes) -> StageSpec {
    if let Some(mistake) = names::mistake_in_name(name) {
        mistakes.push(Diagnostic::new(format!("stage `{name}`: {mistake}")).at(entry.place()));
    }
    let entries = read::table(&entry.value, &format!("stage `{name}`"), mistakes);
    let is_table = entries.is_some();
    let entries = entries.unwrap_or(&NO_ENTRIES);
    read::refuse_unknown_keys(entries, &KEYS, &format!("in stage `{name}`"), mistakes);
    let value = |key: &str| entries.get(key).map(|entry| &entry.value);
    if is_table && value("uses").is_none() {
        let origin = entry.value.origin.as_ref().or(entry.key_origin.as_ref());
        let message = format!("missing key `uses` in stage `{name}`: which kind of stage is it?");
        mistakes.push(Diagnostic::new(message).at(origin).hint("`spdflow kinds` lists the kinds"));
    }
    let kind = value("uses").and_then(|uses| kind(uses, name, around, mistakes));
    let matrix = value("matrix").map_or(Some(Matrix::default()), |matrix| self::matrix(matrix, name, around, mistakes));
    let inputs = value("inputs").map_or_else(Vec::new, |inputs| self::inputs(inputs, name, mistakes));
    let params = params(entry, entries, name, around, mistakes);
    let resources =
        value("resources").map_or_else(Resources::default, |value| resources::resources(name, value, mistakes));
    let policy = resources::policy(name, entries, mistakes);
    let tolerances = tolerances::tolerances(name, entries, mistakes);
    let with: Vec<String> = match value("with").map(|with| &with.data) {
        Some(Data::Array(items)) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let own_params = if with.is_empty() { None } else { value("params").cloned() };
    StageSpec {
        name: name.to_owned(),
        origin: entry.place().cloned(),
        kind,
        matrix,
        inputs,
        params,
        with,
        own_params,
        variants: None,
        resources,
        policy,
        tolerances,
    }
}

fn kind(uses: &Value, stage: &str, around: &Surroundings<'_>, mistakes: &mut Mistakes) -> Option<Arc<dyn StageKind>> {
    let name = read::text(uses, &format!("`uses` of stage `{stage}`"), mistakes)?;
    let kind = around.registry.get(name);
    if kind.is_none() {
        let known: Vec<_> = around.registry.iter().map(|kind| kind.info().name).collect();
        let hint = hint_among(name, "known kinds", known.iter().copied());
        mistakes.push(
            Diagnostic::new(format!("there is no stage kind `{name}`")).at(uses.origin.as_ref()).hint_if_any(hint),
        );
    }
    kind
}

/// Reads `["seed"]` or `{ axes = ["seed"], include = […], exclude = […] }`.
fn matrix(value: &Value, stage: &str, around: &Surroundings<'_>, mistakes: &mut Mistakes) -> Option<Matrix> {
    let before = mistakes.len();
    let what = format!("`matrix` of stage `{stage}`");
    let Data::Table(entries) = &value.data else {
        let axes = matrix_axes(value, &what, around, mistakes);
        return (mistakes.len() == before).then(|| Matrix { axes, ..Matrix::default() });
    };
    read::refuse_unknown_keys(entries, &["axes", "include", "exclude"], &format!("in {what}"), mistakes);
    let axes = match entries.get("axes") {
        Some(axes) => matrix_axes(&axes.value, &format!("`axes` of {what}"), around, mistakes),
        None => {
            let diagnostic = Diagnostic::new(format!("missing key `axes` in {what}")).at(value.origin.as_ref());
            mistakes
                .push(diagnostic.hint("name the axes: `matrix = { axes = [\"AXIS\"], exclude = [{ AXIS = VALUE }] }`"));
            Vec::new()
        }
    };
    let mut patterns = |key: &str| {
        let Some(entry) = entries.get(key) else { return Vec::new() };
        let what = format!("`{key}` of {what}");
        let items = read::list(&entry.value, &what, mistakes).unwrap_or_default();
        items.iter().filter_map(|item| point_pattern(item, &what, &axes, around, mistakes)).collect()
    };
    let (include, exclude) = (patterns("include"), patterns("exclude"));
    (mistakes.len() == before).then_some(Matrix { axes, include, exclude })
}

fn matrix_axes(value: &Value, what: &str, around: &Surroundings<'_>, mistakes: &mut Mistakes) -> Vec<usize> {
    let mut axes = Vec::new();
    for (name, item) in read::texts(value, what, mistakes) {
        match around.axes.iter().position(|axis| axis.name == name) {
            Some(axis) if axes.contains(&axis) => {
                let message = format!("{what} names axis `{name}` twice");
                mistakes.push(Diagnostic::new(message).at(item.origin.as_ref()));
            }
            Some(axis) => axes.push(axis),
            None => {
                let known = around.axes.iter().map(|axis| axis.name.as_str());
                let hint = hint_among(name, "known axes", known)
                    .unwrap_or_else(|| format!("add it under `[axes]`: `{name} = [0, 1]`"));
                let message = format!("there is no axis `{name}`");
                mistakes.push(Diagnostic::new(message).at(item.origin.as_ref()).hint(hint));
            }
        }
    }
    axes
}

/// Reads `{ seed = 0 }`: some of the matrix' axes, each with one of its values.
fn point_pattern(
    item: &Value,
    what: &str,
    axes: &[usize],
    around: &Surroundings<'_>,
    mistakes: &mut Mistakes,
) -> Option<PointPattern> {
    let entries = read::table(item, &format!("an item of {what}"), mistakes)?;
    let before = mistakes.len();
    if entries.is_empty() {
        mistakes.push(Diagnostic::new(format!("an item of {what} names no axis")).at(item.origin.as_ref()));
    }
    let mut pattern = Vec::new();
    for (name, entry) in entries {
        let Some(&axis) = axes.iter().find(|axis| around.axes[**axis].name == *name) else {
            let known = axes.iter().map(|axis| around.axes[*axis].name.as_str());
            let hint = hint_among(name, "axes of this matrix", known);
            let message = format!("{what} names `{name}`, which is no axis of this matrix");
            mistakes.push(Diagnostic::new(message).at(entry.place()).hint_if_any(hint));
            continue;
        };
        let text = entry.value.as_str().map_or_else(|| entry.value.to_string(), str::to_owned);
        let values = around.axes[axis].values.iter().map(|value| value.text.as_str());
        match position_of(&text, values.clone()) {
            Some(position) => pattern.push((axis, position)),
            None => {
                let message = format!("axis `{name}` has no value `{text}`");
                let hint = format!("its values: {}", listed(values));
                mistakes.push(Diagnostic::new(message).at(entry.value.origin.as_ref()).hint(hint));
            }
        }
    }
    (mistakes.len() == before).then_some(PointPattern(pattern))
}

fn inputs(value: &Value, stage: &str, mistakes: &mut Mistakes) -> Vec<InputSpec> {
    let Some(entries) = read::table(value, &format!("`inputs` of stage `{stage}`"), mistakes) else {
        return Vec::new();
    };
    let mut inputs = Vec::new();
    for (slot, entry) in read::in_written_order(entries) {
        let what = format!("input `{slot}` of stage `{stage}`");
        let (items, is_list) = match &entry.value.data {
            Data::Array(items) => (items.as_slice(), true),
            _ => (std::slice::from_ref(&entry.value), false),
        };
        if items.is_empty() {
            mistakes.push(Diagnostic::new(format!("{what} is an empty list")).at(entry.value.origin.as_ref()));
        }
        let sources: Vec<_> = items.iter().filter_map(|item| source(item, &what, mistakes)).collect();
        inputs.push(InputSpec {
            slot: slot.clone(),
            key_origin: entry.key_origin.clone(),
            origin: entry.value.origin.clone(),
            is_many: is_list || sources.iter().any(|source| !source.over.is_empty()),
            sources,
        });
    }
    inputs
}

/// Reads `"decompose[seed=0]"` or `{ from = "decompose", over = ["seed"] }`.
fn source(item: &Value, what: &str, mistakes: &mut Mistakes) -> Option<InputSource> {
    match &item.data {
        Data::String(text) => {
            let reference = reference(text, item, what, mistakes)?;
            Some(InputSource { reference, over: Vec::new(), origin: item.origin.clone() })
        }
        Data::Table(entries) => {
            read::refuse_unknown_keys(entries, &["from", "over"], &format!("in {what}"), mistakes);
            let mut required = |key: &str| {
                let value = entries.get(key).map(|entry| &entry.value);
                if value.is_none() {
                    let message = format!("missing key `{key}` in {what}");
                    let hint = "a gathering input is written `{ from = \"STAGE\", over = [\"AXIS\"] }`";
                    mistakes.push(Diagnostic::new(message).at(item.origin.as_ref()).hint(hint));
                }
                value
            };
            let (from, over) = (required("from"), required("over"));
            let text = read::text(from?, &format!("`from` of {what}"), mistakes)?;
            let reference = reference(text, from?, what, mistakes)?;
            let over_what = format!("`over` of {what}");
            let axes = read::texts(over?, &over_what, mistakes);
            if matches!(&over?.data, Data::Array(items) if items.is_empty()) {
                mistakes.push(Diagnostic::new(format!("{over_what} is an empty list")).at(over?.origin.as_ref()));
            }
            let over = axes.into_iter().map(|(axis, value)| (axis.to_owned(), value.origin.clone())).collect();
            Some(InputSource { reference, over, origin: from?.origin.clone() })
        }
        _ => {
            read::expected("a stage's name or a table with the key `from`", what, item, mistakes);
            None
        }
    }
}

fn reference(text: &str, item: &Value, what: &str, mistakes: &mut Mistakes) -> Option<Reference> {
    Reference::parse(text)
        .map_err(|mistake| {
            mistakes.push(
                Diagnostic::new(format!("{what}: {mistake}"))
                    .at(item.origin.as_ref())
                    .hint("a reference is written `\"STAGE\"` or `\"STAGE[AXIS=VALUE]\"`"),
            );
        })
        .ok()
}

/// Merges the shared tables that `with` names, left to right, and the stage's own parameters over them.
fn params(
    stage_entry: &Entry,
    entries: &Entries,
    stage: &str,
    around: &Surroundings<'_>,
    mistakes: &mut Mistakes,
) -> Option<Value> {
    let mut is_complete = true;
    let empty = Data::Table(std::collections::BTreeMap::new());
    let mut merged = Value { data: empty, origin: None };
    if let Some(with) = entries.get("with") {
        for (name, item) in read::texts(&with.value, &format!("`with` of stage `{stage}`"), mistakes) {
            match around.shared.get(name) {
                Some(Entry { value, .. }) if matches!(value.data, Data::Table(_)) => {
                    merged = merge::over(merged, Value { data: value.data.clone(), origin: None });
                }
                // Reported where it stands.
                Some(_) => is_complete = false,
                None => {
                    is_complete = false;
                    let known = around.shared.keys().map(String::as_str);
                    let hint = hint_among(name, "known tables", known)
                        .unwrap_or_else(|| format!("add a table `[params.{name}]`"));
                    let message = format!("there is no shared parameter table `{name}`");
                    mistakes.push(Diagnostic::new(message).at(item.origin.as_ref()).hint(hint));
                }
            }
        }
    }
    let own = entries.get("params");
    if let Some(own) = own {
        match read::table(&own.value, &format!("`params` of stage `{stage}`"), mistakes) {
            Some(_) => merged = merge::over(merged, own.value.clone()),
            None => is_complete = false,
        }
    }
    // A missing parameter is to be added to the stage's own table.
    let place = own.and_then(|own| own.value.origin.as_ref().or(own.key_origin.as_ref()));
    merged.origin = place.or(stage_entry.value.origin.as_ref()).or(stage_entry.key_origin.as_ref()).cloned();
    is_complete.then_some(merged)
}
