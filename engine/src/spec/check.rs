//! Turns the tree of a pipeline into its parts: header, axes, shared parameters and stages.

use std::path::Path;
use std::time::Duration;

use super::axes::{self, Axis};
use super::read::{self, Entries};
use super::stage::{self, StageSpec};
use super::{Mistakes, names, resources};
use crate::diagnostic::Diagnostic;
use crate::kind::Registry;
use crate::value::Value;

/// A pipeline whose parts have the right form.
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) expected_time: Option<Duration>,
    pub(super) axes: Vec<Axis>,
    /// In the order of the file.
    pub(super) stages: Vec<StageSpec>,
}

/// What a stage may refer to.
pub(super) struct Surroundings<'a> {
    pub(super) registry: &'a Registry,
    pub(super) axes: &'a [Axis],
    /// `[params.NAME]`.
    pub(super) shared: &'a Entries,
}

static NO_ENTRIES: Entries = Entries::new();

/// Returns the parts of the pipeline at `path`.
pub(super) fn check(root: &Value, path: &Path, registry: &Registry, mistakes: &mut Mistakes) -> Checked {
    let sections = read::table(root, "the pipeline", mistakes).unwrap_or(&NO_ENTRIES);
    read::refuse_unknown_keys(
        sections,
        &["pipeline", "axes", "params", "stage", "profile", "base"],
        "at the top of the pipeline",
        mistakes,
    );
    let stem = path.file_stem().map_or_else(|| "pipeline".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let Header { name, description, expected_time } = header(sections, stem, mistakes);
    let mut section = |name: &str| {
        sections
            .get(name)
            .and_then(|entry| read::table(&entry.value, &format!("`{name}`"), mistakes))
            .unwrap_or(&NO_ENTRIES)
    };
    let (axes, shared, stages) = (section("axes"), section("params"), section("stage"));
    let axes = axes::axes(axes, mistakes);
    for (name, entry) in shared {
        read::table(&entry.value, &format!("shared parameters `{name}`"), mistakes);
    }
    if stages.is_empty() && mistakes.is_empty() {
        mistakes.push(
            Diagnostic::new(format!("pipeline `{name}` has no stages")).hint("a stage is a table `[stage.NAME]`"),
        );
    }
    // The texts are numbered: files first, `--set` arguments after them; a stage cannot be made by `--set`.
    let surroundings = Surroundings { registry, axes: &axes, shared };
    let stages = read::in_written_order(stages)
        .into_iter()
        .map(|(name, entry)| stage::stage(name, entry, &surroundings, mistakes))
        .collect();
    Checked { name, description, expected_time, axes, stages }
}

/// What `[pipeline]` says.
struct Header {
    name: String,
    description: String,
    expected_time: Option<Duration>,
}

fn header(sections: &Entries, stem: String, mistakes: &mut Mistakes) -> Header {
    let nothing = |name| Header { name, description: String::new(), expected_time: None };
    let Some(entry) = sections.get("pipeline") else { return nothing(stem) };
    let Some(header) = read::table(&entry.value, "`pipeline`", mistakes) else { return nothing(stem) };
    read::refuse_unknown_keys(header, &["name", "description", "expected_time"], "in `[pipeline]`", mistakes);
    let mut text = |key: &str| {
        header.get(key).and_then(|entry| read::text(&entry.value, &format!("the pipeline's {key}"), mistakes))
    };
    let (name, description) = (text("name").map(str::to_owned), text("description").unwrap_or_default().to_owned());
    let expected_time = text("expected_time").map(resources::time);
    if let (Some(name), Some(entry)) = (&name, header.get("name"))
        && let Some(mistake) = names::mistake_in_name(name)
    {
        mistakes.push(Diagnostic::new(format!("pipeline `{name}`: {mistake}")).at(entry.value.origin.as_ref()));
    }
    if let (Some(Err(mistake)), Some(entry)) = (&expected_time, header.get("expected_time")) {
        let message = format!("the pipeline's expected_time: {mistake}");
        mistakes.push(Diagnostic::new(message).at(entry.value.origin.as_ref()));
    }
    Header { name: name.unwrap_or(stem), description, expected_time: expected_time.and_then(Result::ok) }
}
