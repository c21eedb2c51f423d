//! What the engine adds to a stage that runs in its own process: `cargo bench -p spdflow-engine --bench overhead`.
//!
//! Runs a thousand stages that write a few bytes each, a chain by two jobs, in a cache that is made for it, and prints
//! milliseconds a stage: the least of some rounds. Everything counts that `run` does, from the plan to the last record
//! on disk.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spdflow_engine::cache::{BuildInfo, Cache, Digest};
use spdflow_engine::event::{Event, Listener, RunStatus};
use spdflow_engine::executor::local::Local;
use spdflow_engine::kind::{
    Device, InputSlot, Kind, KindInfo, Registry, StageContext, StageError, StageKind, StopFlag, Summary,
};
use spdflow_engine::outside::Found;
use spdflow_engine::params::Params;
use spdflow_engine::pipeline::{Instance, InstanceId, Pipeline, Policy, Resources};
use spdflow_engine::plan::Scope;
use spdflow_engine::run::{Order, RunOptions, run};
use spdflow_engine::value::Value;
use spdflow_engine::workspace::Workspace;

const STAGES: usize = 1000;
const ROUNDS: usize = 5;

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Number {
    number: usize,
}

/// Writes its parameter.
struct Write;

impl Kind for Write {
    type Params = Number;
    const INFO: KindInfo = KindInfo {
        name: "write",
        version: 1,
        summary: "",
        inputs: &[InputSlot { name: "above", accepts: &["*"], many: true, required: false, summary: "" }],
    };

    fn run(params: &Number, context: &StageContext<'_>) -> Result<Summary, StageError> {
        let path = context.out_dir.join("number.json");
        fs::write(&path, format!("{}\n", params.number)).map_err(StageError::io("write", &path))?;
        let mut summary = Summary::default();
        summary.file("number.json", "json", "a number");
        Ok(summary)
    }
}

struct Silent;

impl Listener for Silent {
    fn on_event(&self, _: &Event) {}
}

fn pipeline() -> Pipeline {
    let kind: Arc<dyn StageKind> = Registry::new().with::<Write>().get("write").expect("it was registered");
    let instance = |number: usize| Instance {
        id: InstanceId { stage: format!("s{number}"), axes: BTreeMap::new() },
        kind: kind.clone(),
        params: Params::of(&Value::encode(&Number { number })).expect("a number"),
        inputs: BTreeMap::from([("above".to_owned(), number.checked_sub(1).into_iter().collect())]),
        files: BTreeMap::new(),
        resources: Resources::default(),
        policy: Policy::default(),
        tolerances: Vec::new(),
    };
    Pipeline {
        name: "overhead".to_owned(),
        description: String::new(),
        expected_time: None,
        sources: Vec::new(),
        instances: (0..STAGES).map(instance).collect(),
        sweep: None,
        outside: Found::default(),
    }
}

fn options() -> RunOptions {
    RunOptions {
        order: Order::Urgent,
        scope: Scope::default(),
        jobs: 2,
        threads: 2,
        keep_going: false,
        device: Device::Cpu,
        ranks: 1,
        checkpoint_every: Duration::from_secs(30),
        locked: None,
        remote: None,
        arguments: Vec::new(),
        memory_bytes: None,
        gpus: Vec::new(),
        stop: StopFlag::new(),
        build: BuildInfo {
            version: String::new(),
            git_commit: String::new(),
            cargo_lock: Digest::of(b""),
            sources: None,
            rustc: String::new(),
            profile: String::new(),
        },
    }
}

fn main() {
    let pipeline = pipeline();
    // On a disk: a file system in memory would hide what the engine asks of one. Nothing is removed between rounds, since
    // some file systems are slow to make files soon after they removed many.
    let place = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let round = |number: usize| {
        let folder = place.path().join(number.to_string());
        let begin = Instant::now();
        let cache = Cache::open(&folder.join("cache")).expect("a cache");
        let workspace = Workspace::new(&cache, &folder.join("out"), &pipeline);
        let summary = run(&pipeline, &workspace, &options(), &Local, &Silent).expect("a run");
        assert_eq!(summary.status, RunStatus::Done);
        begin.elapsed().as_secs_f64() * 1e3 / STAGES as f64
    };
    let least = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
    println!("{least:.3} ms a stage");
}
