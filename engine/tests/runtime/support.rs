//! Small kinds, pipelines built by hand, and a listener that remembers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spdflow_cache::{BuildInfo, Cache, Digest};
use spdflow_engine::event::{Event, Listener, Outcome};
use spdflow_engine::executor::local::Local;
use spdflow_engine::kind::{Device, InputSlot, KindInfo, StageContext, StageError, StageKind, StopFlag, Summary};
use spdflow_engine::outside::Found;
use spdflow_engine::params::Params;
use spdflow_engine::pipeline::{Instance, InstanceId, Pipeline, Policy, Resources, Source};
use spdflow_engine::plan::{Plan, Scope, plan};
use spdflow_engine::run::{Order, RunOptions, RunSummary, run};
use spdflow_engine::value::{Data, DecodeError, Entry, Value};
use spdflow_engine::workspace::Workspace;

type Run = fn(&Value, &StageContext<'_>) -> Result<Summary, StageError>;

/// A kind that is one function.
struct TestKind {
    info: &'static KindInfo,
    run: Run,
}

impl StageKind for TestKind {
    fn info(&self) -> &'static KindInfo {
        self.info
    }

    fn resolve(&self, params: &Value) -> Result<Value, Vec<DecodeError>> {
        Ok(params.clone())
    }

    fn params_schema(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn run(&self, params: &Value, context: &StageContext<'_>) -> Result<Summary, StageError> {
        (self.run)(params, context)
    }
}

const fn info(name: &'static str) -> KindInfo {
    KindInfo { name, version: 1, summary: "", inputs: INPUTS }
}

const INPUTS: &[InputSlot] =
    &[InputSlot { name: "of", accepts: &["test.*"], many: true, required: false, summary: "" }];

static SUM: KindInfo = info("test.sum");
static SLOW: KindInfo = info("test.slow");
static GATED: KindInfo = info("test.gated");
static BROKEN: KindInfo = info("test.broken");
static VANDAL: KindInfo = info("test.vandal");

/// Adds `add` to the numbers of its inputs and keeps the remainder by `modulo`; writes it to `number.json` and, to
/// have a subfolder, its digits to `text/digits.txt`.
pub fn sum() -> Arc<dyn StageKind> {
    Arc::new(TestKind { info: &SUM, run: run_sum })
}

/// Takes `steps` steps of `milliseconds` each, with checkpoints; the result depends on every step.
pub fn slow() -> Arc<dyn StageKind> {
    Arc::new(TestKind { info: &SLOW, run: run_slow })
}

/// Waits until the file `gate` exists.
pub fn gated() -> Arc<dyn StageKind> {
    Arc::new(TestKind { info: &GATED, run: run_gated })
}

/// Goes wrong in the way `how` says, unless the file `unless` exists.
pub fn broken() -> Arc<dyn StageKind> {
    Arc::new(TestKind { info: &BROKEN, run: run_broken })
}

/// Damages the file it reads, in the cache, and removes the folder `remove`.
pub fn vandal() -> Arc<dyn StageKind> {
    Arc::new(TestKind { info: &VANDAL, run: run_vandal })
}

fn number(params: &Value, key: &str, default: i64) -> i64 {
    match field(params, key) {
        Some(Data::Integer(number)) => *number,
        _ => default,
    }
}

fn text<'a>(params: &'a Value, key: &str) -> &'a str {
    match field(params, key) {
        Some(Data::String(text)) => text,
        _ => "",
    }
}

fn field<'a>(params: &'a Value, key: &str) -> Option<&'a Data> {
    let Data::Table(table) = &params.data else { panic!("params are a table") };
    table.get(key).map(|entry| &entry.value.data)
}

fn write(path: PathBuf, text: &str) -> Result<(), StageError> {
    fs::write(&path, text).map_err(StageError::io("write", &path))
}

fn result(context: &StageContext<'_>, number: i64) -> Result<Summary, StageError> {
    let digits = context.out_dir.join("text");
    fs::create_dir(&digits).map_err(StageError::io("create", &digits))?;
    write(context.out_dir.join("number.json"), &format!("{number}\n"))?;
    write(digits.join("digits.txt"), &number.to_string())?;
    let mut summary = Summary::default();
    summary.file("number.json", "json", "the number");
    summary.file("text/digits.txt", "text", "its digits");
    summary.metric("number", number as f64);
    Ok(summary)
}

fn run_sum(params: &Value, context: &StageContext<'_>) -> Result<Summary, StageError> {
    let mut total = number(params, "add", 0);
    for input in context.inputs("of") {
        let path = input.path("number.json")?;
        let text = fs::read_to_string(path).map_err(StageError::io("read", path))?;
        total += text.trim().parse::<i64>().map_err(|error| StageError::failed(error.to_string()))?;
    }
    context.progress.log(&format!("sum of {} inputs", context.inputs("of").len()));
    result(context, total.rem_euclid(number(params, "modulo", i64::MAX)))
}

fn run_slow(params: &Value, context: &StageContext<'_>) -> Result<Summary, StageError> {
    let steps = number(params, "steps", 10);
    let pause = Duration::from_millis(u64::try_from(number(params, "milliseconds", 5)).unwrap());
    let checkpoint = context.scratch_dir.join("checkpoint");
    let (mut step, mut state) = (0, 1_i64);
    if let Ok(saved) = fs::read_to_string(&checkpoint) {
        let (at, value) = saved.split_once(' ').unwrap();
        (step, state) = (at.parse().unwrap(), value.parse().unwrap());
        context.progress.resumed(u64::try_from(step).unwrap());
    }
    let save = |step: i64, state: i64| {
        let fresh = context.scratch_dir.join("fresh");
        write(fresh.clone(), &format!("{step} {state}"))?;
        fs::rename(&fresh, &checkpoint).map_err(StageError::io("write", &checkpoint))
    };
    let mut saved = Instant::now();
    while step < steps {
        std::thread::sleep(pause);
        step += 1;
        state = (state * 1_103_515_245 + 12_345 + step) % (1 << 31);
        context.progress.step(u64::try_from(step).unwrap(), u64::try_from(steps).unwrap(), None);
        if context.should_stop() {
            save(step, state)?;
            return Err(StageError::Interrupted);
        }
        if saved.elapsed() >= context.checkpoint_every {
            save(step, state)?;
            saved = Instant::now();
        }
    }
    result(context, state)
}

fn run_gated(params: &Value, context: &StageContext<'_>) -> Result<Summary, StageError> {
    let gate = Path::new(text(params, "gate"));
    let begin = Instant::now();
    while !gate.exists() {
        if begin.elapsed() > Duration::from_secs(60) {
            return Err(StageError::failed("nobody opened the gate"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    result(context, 1)
}

fn run_broken(params: &Value, context: &StageContext<'_>) -> Result<Summary, StageError> {
    write(context.out_dir.join("partial.txt"), "half")?;
    if Path::new(text(params, "unless")).exists() {
        fs::remove_file(context.out_dir.join("partial.txt")).map_err(StageError::io("remove", context.out_dir))?;
        return result(context, 7);
    }
    context.progress.log("about to break");
    match text(params, "how") {
        "fail" => Err(StageError::failed_with_hint("the loss is NaN", "lower the learning rate")),
        "panic" => panic!("index 3 is out of range"),
        "undeclared" => Ok(Summary::default()),
        "unwritten" => {
            let mut summary = Summary::default();
            summary.file("partial.txt", "text", "");
            summary.file("ghost.json", "json", "");
            Ok(summary)
        }
        other => panic!("no such way to break: {other}"),
    }
}

fn run_vandal(params: &Value, context: &StageContext<'_>) -> Result<Summary, StageError> {
    let blob = context.input("of").path("number.json")?;
    fs::remove_file(blob).map_err(StageError::io("remove", blob))?;
    write(blob.to_owned(), "9\n")?;
    fs::remove_dir_all(text(params, "remove")).map_err(StageError::io("remove", blob))?;
    result(context, 0)
}

/// One stage of a test pipeline: name, kind, parameters, names of the stages it takes numbers from.
pub struct Stage {
    pub name: &'static str,
    pub kind: Arc<dyn StageKind>,
    pub params: Vec<(&'static str, Data)>,
    pub inputs: Vec<&'static str>,
}

pub fn stage(
    name: &'static str,
    kind: Arc<dyn StageKind>,
    params: &[(&'static str, i64)],
    inputs: &[&'static str],
) -> Stage {
    let params = params.iter().map(|(key, number)| (*key, Data::Integer(*number))).collect();
    Stage { name, kind, params, inputs: inputs.to_vec() }
}

/// Returns a pipeline named `p` of stages given producers first.
pub fn pipeline(stages: Vec<Stage>) -> Pipeline {
    let places: BTreeMap<_, _> = stages.iter().enumerate().map(|(place, stage)| (stage.name, place)).collect();
    let instance = |stage: Stage| {
        let of: Vec<_> = stage.inputs.iter().map(|name| places[name]).collect();
        let entry = |data| Entry { key_origin: None, value: Value { data, origin: None } };
        let params = stage.params.into_iter().map(|(key, data)| (key.to_owned(), entry(data))).collect();
        Instance {
            id: InstanceId { stage: stage.name.to_owned(), axes: BTreeMap::new() },
            kind: stage.kind,
            params: Params::of(&Value { data: Data::Table(params), origin: None }).unwrap(),
            inputs: BTreeMap::from([("of".to_owned(), of)]),
            files: BTreeMap::new(),
            resources: Resources::default(),
            policy: Policy::default(),
            tolerances: Vec::new(),
        }
    };
    Pipeline {
        sweep: None,
        outside: Found::default(),
        name: "p".to_owned(),
        description: String::new(),
        expected_time: None,
        sources: vec![Source { name: "p.toml".to_owned(), text: "# by hand\n".to_owned() }],
        instances: stages.into_iter().map(instance).collect(),
    }
}

/// The chain `a -> b -> c`; `b` keeps only the remainder by 10.
pub fn chain(add: i64) -> Pipeline {
    chain_with(add, 0)
}

/// As [`chain`], with another parameter for `b`.
pub fn chain_with(a: i64, b: i64) -> Pipeline {
    pipeline(vec![
        stage("a", sum(), &[("add", a)], &[]),
        stage("b", sum(), &[("add", b), ("modulo", 10)], &["a"]),
        stage("c", sum(), &[("add", 100)], &["b"]),
    ])
}

/// A folder with a cache and an output root.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn cache(&self) -> Cache {
        Cache::open(&self.dir.path().join("cache")).unwrap()
    }

    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Runs with one job and returns which instances ended how.
    pub fn run(&self, pipeline: &Pipeline) -> Report {
        self.run_with(pipeline, &options())
    }

    pub fn run_with(&self, pipeline: &Pipeline, options: &RunOptions) -> Report {
        self.run_watched(pipeline, options, |_| ())
    }

    /// As [`Place::run_with`]; `watch` is called at every event.
    pub fn run_watched(
        &self,
        pipeline: &Pipeline,
        options: &RunOptions,
        watch: impl Fn(&Event) + Send + Sync,
    ) -> Report {
        let cache = self.cache();
        let workspace = Workspace::new(&cache, &self.out(), pipeline);
        let listener = Recorder { events: Mutex::default(), watch };
        let summary = run(pipeline, &workspace, options, &Local, &listener).unwrap();
        let names = |index: usize| pipeline.instances[index].id.to_string();
        let outcomes =
            summary.results.iter().map(|result| format!("{} {}", names(result.index), result.outcome.word())).collect();
        Report { outcomes, events: listener.events.into_inner().unwrap(), summary }
    }

    pub fn plan(&self, pipeline: &Pipeline, scope: &Scope) -> Plan {
        let cache = self.cache();
        let workspace = Workspace::new(&cache, &self.out(), pipeline);
        plan(pipeline, &workspace, scope, &Device::Cpu.into()).unwrap()
    }

    /// Returns every file below `out/`, with its contents.
    pub fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        tree(&self.out())
    }

    pub fn number(&self, stage: &str) -> String {
        fs::read_to_string(self.out().join("p").join(stage).join("number.json")).unwrap().trim().to_owned()
    }
}

pub fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

pub struct Report {
    pub outcomes: Vec<String>,
    pub events: Vec<Event>,
    pub summary: RunSummary,
}

impl Report {
    /// Returns the names of the instances that ran, in order.
    pub fn ran(&self) -> Vec<String> {
        let started = |event: &Event| match event {
            Event::Started { instance, .. } => Some(instance.clone()),
            _ => None,
        };
        self.events.iter().filter_map(started).collect()
    }

    pub fn warnings(&self) -> Vec<String> {
        let warning = |event: &Event| match event {
            Event::Warning { instance, message } => {
                Some(format!("{}: {message}", instance.as_deref().unwrap_or_default()))
            }
            _ => None,
        };
        self.events.iter().filter_map(warning).collect()
    }

    pub fn outcome(&self, index: usize) -> Outcome {
        self.summary.results[index].outcome
    }
}

struct Recorder<F> {
    events: Mutex<Vec<Event>>,
    watch: F,
}

impl<F: Fn(&Event) + Send + Sync> Listener for Recorder<F> {
    fn on_event(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
        (self.watch)(event);
    }
}

pub fn options() -> RunOptions {
    RunOptions {
        order: Order::Urgent,
        locked: None,
        remote: None,
        arguments: Vec::new(),
        scope: Scope::default(),
        jobs: 1,
        threads: 2,
        memory_bytes: None,
        gpus: Vec::new(),
        keep_going: false,
        device: Device::Cpu,
        ranks: 1,
        checkpoint_every: Duration::from_secs(30),
        stop: StopFlag::new(),
        build: BuildInfo {
            version: "0".to_owned(),
            git_commit: "unknown".to_owned(),
            cargo_lock: Digest::of(b""),
            sources: None,
            rustc: "rustc".to_owned(),
            profile: "debug".to_owned(),
        },
    }
}
