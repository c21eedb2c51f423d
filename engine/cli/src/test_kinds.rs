//! Small stage kinds for the tests of this crate, and pipelines made of them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use spdflow_engine::diagnostic::Report;
use spdflow_engine::kind::{InputSlot, Kind, KindInfo, ParamIssue, Registry, StageContext, StageError, Summary};
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::spec::{self, Files, LoadOptions};

/// Parameters of a kind that trains.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// How many updates.
    #[serde(default)]
    steps: u32,
    #[serde(default)]
    seed: u64,
    /// Which share of the features is active.
    #[serde(default)]
    probability: f32,
    #[serde(default)]
    losses: Vec<Loss>,
}

/// A term of the objective.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schemars(tag = "kind")]
pub(crate) enum Loss {
    /// How far the sum of components is from the target.
    Faithfulness {
        /// Its weight.
        coeff: f64,
    },
}

macro_rules! kind {
    ($type:ident $name:literal $summary:literal [$($slot:expr),*]) => {
        pub(crate) struct $type;

        impl Kind for $type {
            type Params = Params;
            const INFO: KindInfo = KindInfo { name: $name, version: 1, summary: $summary, inputs: &[$($slot),*] };

            fn validate(params: &Params) -> Vec<ParamIssue> {
                let outside = !(0.0..=1.0).contains(&params.probability);
                let message = format!("must be in [0, 1], found {}", params.probability);
                outside.then(|| ParamIssue::new("probability", message)).into_iter().collect()
            }

            fn run(_: &Params, _: &StageContext<'_>) -> Result<Summary, StageError> {
                Ok(Summary::default())
            }
        }
    };
}

const TARGET: InputSlot =
    InputSlot { name: "target", accepts: &["train.*"], many: false, required: true, summary: "The model." };
const DECOMPOSITIONS: InputSlot = InputSlot {
    name: "decompositions",
    accepts: &["decompose.spd", "plot"],
    many: true,
    required: true,
    summary: "What to draw.",
};

kind!(Train "train.tms" "Trains a toy model" []);
kind!(Decompose "decompose.spd" "Takes a model apart" [TARGET]);
kind!(Plot "plot" "Draws" [DECOMPOSITIONS]);

/// Returns the kinds of this file.
pub(crate) fn registry() -> Registry {
    Registry::new().with::<Train>().with::<Decompose>().with::<Plot>()
}

struct Memory(BTreeMap<&'static str, &'static str>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = path.to_str().and_then(|name| self.0.get(name));
        text.map(|text| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Loads the pipeline `p.toml` with this text.
pub(crate) fn load(text: &'static str, profile: Option<&str>, set: &[&str]) -> Result<Pipeline, Report> {
    let files = Memory([("p.toml", text)].into());
    let set = set.iter().map(|argument| (*argument).to_owned()).collect();
    let options = LoadOptions { profile: profile.map(str::to_owned), set, sweep: None, files: &files };
    spec::load(Path::new("p.toml"), &options, &registry())
}

/// A pipeline of one target, taken apart at two seeds, and a picture of both.
pub(crate) const PIPELINE: &str = r#"[pipeline]
name = "toy"

[axes]
seed = [0, 1]

[stage.target]
uses = "train.tms"
params = { steps = 10 }

[stage.decompose]
uses = "decompose.spd"
matrix = ["seed"]
inputs = { target = "target" }
params = { seed = "${seed}" }

[stage.figures]
uses = "plot"
inputs = { decompositions = { from = "decompose", over = ["seed"] } }
"#;
