//! `[sweep.NAME]`: one pipeline at many parameter values.
//!
//! A sweep mirrors the tables it varies; where the pipeline has a value, it has what to choose from:
//!
//! ```toml
//! [sweep.price.stage.decompose.params]
//! lr.start = { values = [1e-3, 3e-4] }
//! losses = [{ kind = "importance_minimality", coeff = { log_uniform = [1e-5, 1e-3] } }]
//! ```
//!
//! Running under a sweep adds an axis called as it: the stages whose parameters vary, and all that take from them, get
//! an instance for each point. All others stay as they are, and run once.
//!
//! `choices.rs` reads what varies, `points.rs` makes the points, `install.rs` gives them to the stages.

mod choices;
mod install;
mod points;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::read;
use super::{Mistakes, names};
use crate::diagnostic::Diagnostic;
use crate::suggest::hint_among;
use crate::value::{Data, Entry, Origin, Value};
use choices::{collect, in_order};

/// A sweep as written.
pub(super) struct SweepSpec {
    name: String,
    origin: Option<Origin>,
    keys: Vec<SweptKey>,
    /// For each point its name and, for each key, its value.
    points: Vec<(String, Vec<Value>)>,
}

/// A parameter that varies.
struct SweptKey {
    home: Home,
    steps: Vec<Step>,
    choice: Choice,
    origin: Option<Origin>,
}

/// The table of parameters that a key lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Home {
    /// `[stage.NAME.params]`.
    Stage(String),
    /// `[params.NAME]`, which stages take with `with`.
    Shared(String),
}

/// One step into a table of parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    /// To the item of a list whose `kind` this is.
    Kind(String),
}

/// What a parameter is chosen from.
enum Choice {
    Values(Vec<Value>),
    Uniform(f64, f64),
    LogUniform(f64, f64),
    /// From the first number up to, but not including, the second.
    Integers(i64, i64),
}

/// The parameters of a stage at the points of a sweep.
pub(super) struct Variants {
    /// The position of the sweep's axis in the pipeline's list.
    pub(super) axis: usize,
    /// By point.
    pub(super) params: Arc<[Value]>,
}

/// Takes the section `sweep` out of the tree, checks all of it, and returns the sweep called `wanted`.
pub(super) fn take(root: &mut Value, wanted: Option<&str>, mistakes: &mut Mistakes) -> Option<SweepSpec> {
    let Data::Table(sections) = &mut root.data else { return None };
    let sweeps = match sections.remove("sweep").map(|entry| entry.value) {
        None => BTreeMap::new(),
        Some(Value { data: Data::Table(sweeps), .. }) => sweeps,
        Some(other) => {
            read::expected("a table", "`sweep`", &other, mistakes);
            return None;
        }
    };
    if let Some(wanted) = wanted
        && !sweeps.contains_key(wanted)
    {
        let hint = hint_among(wanted, "known sweeps", sweeps.keys().map(String::as_str)).unwrap_or_else(|| {
            "the file has no sweeps; a sweep is a table `[sweep.NAME.stage.STAGE.params]`".to_owned()
        });
        mistakes.push(Diagnostic::new(format!("there is no sweep `{wanted}`")).hint(hint));
    }
    let specs = sweeps.iter().filter_map(|(name, entry)| Some((name, spec(name, entry, mistakes)?)));
    let specs: Vec<_> = specs.collect();
    specs.into_iter().find(|(name, _)| Some(name.as_str()) == wanted).map(|(_, spec)| spec)
}

fn spec(name: &str, entry: &Entry, mistakes: &mut Mistakes) -> Option<SweepSpec> {
    let before = mistakes.len();
    if let Some(mistake) = names::mistake_in_name(name) {
        mistakes.push(Diagnostic::new(format!("sweep `{name}`: {mistake}")).at(entry.place()));
    }
    let what = format!("sweep `{name}`");
    let entries = read::table(&entry.value, &what, mistakes)?;
    read::refuse_unknown_keys(entries, &["samples", "seed", "stage", "params"], &format!("in {what}"), mistakes);
    let mut whole = |key: &str, least: i64| {
        let value = &entries.get(key)?.value;
        match value.data {
            Data::Integer(number) if number >= least => Some(number),
            _ => {
                read::expected(
                    &format!("a whole number of at least {least}"),
                    &format!("`{key}` of {what}"),
                    value,
                    mistakes,
                );
                None
            }
        }
    };
    let (samples, seed) = (whole("samples", 1), whole("seed", 0));
    let mut keys = Vec::new();
    if let Some(stages) = entries.get("stage") {
        let what = format!("`stage` of {what}");
        for (stage, entry) in in_order(read::table(&stages.value, &what, mistakes)) {
            let what = format!("stage `{stage}` of sweep `{name}`");
            let Some(inside) = read::table(&entry.value, &what, mistakes) else { continue };
            read::refuse_unknown_keys(inside, &["params"], &format!("in {what}"), mistakes);
            if let Some(params) = inside.get("params") {
                collect(&params.value, &Home::Stage(stage.clone()), &mut Vec::new(), &mut keys, mistakes);
            }
        }
    }
    if let Some(shared) = entries.get("params") {
        for (table, entry) in in_order(read::table(&shared.value, &format!("`params` of {what}"), mistakes)) {
            collect(&entry.value, &Home::Shared(table.clone()), &mut Vec::new(), &mut keys, mistakes);
        }
    }
    if keys.is_empty() && mistakes.len() == before {
        let hint = "write what varies as the pipeline would, with `{ values = […] }` for the value";
        mistakes.push(Diagnostic::new(format!("{what} varies nothing")).at(entry.place()).hint(hint));
    }
    if mistakes.len() > before {
        return None;
    }
    let points = match samples {
        Some(samples) => points::sampled(&keys, samples as usize, seed.unwrap_or(0), &what, entry, mistakes),
        None => points::grid(&keys, &what, entry, mistakes),
    }?;
    Some(SweepSpec { name: name.to_owned(), origin: entry.place().cloned(), keys, points })
}

fn written(steps: &[Step]) -> String {
    let name = |step: &Step| match step {
        Step::Key(name) | Step::Kind(name) => name.clone(),
    };
    steps.iter().map(name).collect::<Vec<_>>().join(".")
}
