//! Whole pipelines in, instances or reports out, with kinds made for the purpose.

mod instances;
mod limits;
mod mistakes;
mod overrides;
mod sweeps;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::*;
use crate::kind::{InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

/// Files that exist only in a test.
struct Memory(BTreeMap<&'static str, &'static str>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<String> {
        let name = path.to_str().unwrap_or_default();
        self.0.get(name).map(|text| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    steps: u32,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    lr: f64,
    #[serde(default)]
    title: String,
    #[serde(default)]
    sizes: Vec<u32>,
    #[serde(default)]
    optim: Option<Optim>,
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Optim {
    start: f64,
    #[serde(default)]
    end: f64,
}

macro_rules! kind {
    ($type:ident $name:literal [$($slot:expr),*]) => {
        struct $type;

        impl Kind for $type {
            type Params = Params;
            const INFO: KindInfo = KindInfo { name: $name, version: 1, summary: "For tests.", inputs: &[$($slot),*] };

            fn validate(params: &Params) -> Vec<ParamIssue> {
                let too_small = params.lr < 0.0;
                too_small.then(|| ParamIssue::new("lr", format!("must not be negative, found {}", params.lr))).into_iter().collect()
            }

            fn run(_: &Params, _: &StageContext<'_>) -> Result<Summary, StageError> {
                Ok(Summary::default())
            }
        }
    };
}

const fn slot(name: &'static str, accepts: &'static [&'static str], many: bool, required: bool) -> InputSlot {
    InputSlot { name, accepts, many, required, summary: "" }
}

kind!(Train "train.tms" []);
kind!(Decompose "decompose.spd" [slot("target", &["train.*"], false, true)]);
kind!(Plot "plot" [slot("decompositions", &["decompose.*"], true, true), slot("comparison", &["plot"], false, false)]);
kind!(Echo "echo" [slot("from", &["*"], false, false)]);
kind!(Any "any" [slot("*", &["*"], true, false)]);

fn registry() -> Registry {
    Registry::new().with::<Train>().with::<Decompose>().with::<Plot>().with::<Echo>().with::<Any>()
}

fn load_with(files: &[(&'static str, &'static str)], profile: Option<&str>, set: &[&str]) -> Result<Pipeline, Report> {
    let files = Memory(files.iter().copied().collect());
    let options = LoadOptions {
        profile: profile.map(str::to_owned),
        set: set.iter().map(|text| (*text).to_owned()).collect(),
        sweep: None,
        files: &files,
    };
    load(Path::new("p.toml"), &options, &registry())
}

fn good(text: &'static str, set: &[&str]) -> Pipeline {
    load_with(&[("p.toml", text)], None, set).unwrap_or_else(|report| panic!("{report}"))
}

/// Returns each mistake as "line: message [hints]".
fn bad(text: &'static str, set: &[&str]) -> Vec<String> {
    lines(load_with(&[("p.toml", text)], None, set))
}

fn lines(result: Result<Pipeline, Report>) -> Vec<String> {
    let Err(report) = result else { panic!("no mistake was found") };
    report
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let place = |origin| {
                let (line, column) = report.line_and_column(origin);
                format!("{}:{line}:{column}", report.sources[origin.source].name)
            };
            let place = diagnostic.labels.first().map_or("-".to_owned(), |label| place(&label.origin));
            let hints =
                if diagnostic.hints.is_empty() { String::new() } else { format!(" [{}]", diagnostic.hints.join("; ")) };
            format!("{place} {}{hints}", diagnostic.message)
        })
        .collect()
}

fn ids(pipeline: &Pipeline) -> Vec<String> {
    pipeline.instances.iter().map(|instance| instance.id.to_string()).collect()
}

/// Returns the names of the artifacts an instance takes in a slot.
fn inputs(pipeline: &Pipeline, id: &str, slot: &str) -> Vec<String> {
    let instance = pipeline.instances.iter().find(|instance| instance.id.to_string() == id).expect("present");
    instance.inputs[slot].iter().map(|index| pipeline.instances[*index].id.to_string()).collect()
}

fn param(pipeline: &Pipeline, id: &str, key: &str) -> String {
    let instance = pipeline.instances.iter().find(|instance| instance.id.to_string() == id).expect("present");
    instance.params.value().get(key).expect("present").to_string()
}

const TMS: &str = r#"
[pipeline]
name = "tms"
description = "A toy"

[axes]
seed = [0, 1]
lr = [1e-3, 1e-2]

[params.optim]
steps = 7
optim = { start = 1, end = 2 }

[stage.figures]
uses = "plot"
inputs = { decompositions = { from = "decompose", over = ["seed", "lr"] } }

[stage.per_lr]
uses = "plot"
matrix = ["lr"]
inputs = { decompositions = { from = "decompose", over = ["seed"] } }

[stage.decompose]
uses = "decompose.spd"
matrix = ["seed", "lr"]
with = ["optim"]
inputs = { target = "target" }
params = { seed = "${seed}", lr = "${lr}", title = "run ${seed} at ${lr} for $${x}", optim = { start = 5 } }

[stage.target]
uses = "train.tms"
params = { steps = 10_000 }

[stage.one]
uses = "plot"
inputs = { decompositions = ["decompose[seed=1,lr=1e-2]", "decompose[lr=0.001, seed=0]"] }

[profile.smoke.set]
"axes.seed" = [1, 0]
"stage.target.params.steps" = 5
"#;
