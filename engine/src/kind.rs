//! What a stage kind is: the contract between the engine and the code that does the work.
//!
//! A kind (`train.tms`, `decompose.spd`, …) has a name, a version, typed parameters, named input slots and a
//! `run` that turns inputs into files. Kinds implement [`Kind`], which speaks their own parameter struct; the
//! engine works with the object-safe [`StageKind`], which every [`Kind`] is automatically. The engine knows no
//! concrete kind: the binary hands it a [`Registry`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use spdflow_cache::Digest;

use crate::capacity::Gpu;
pub use crate::device::{Device, NumericTarget};
use crate::outside::{Outside, OutsideFiles};
use crate::ranks::World;
use crate::value::{DecodeError, Value};

/// The fixed facts about a stage kind.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// The name used in `uses = "…"`, for example `decompose.spd`.
    pub name: &'static str,
    /// Part of every fingerprint: goes up when the same inputs and parameters give other bytes than before.
    pub version: u32,
    /// One line for `spdflow kinds`.
    pub summary: &'static str,
    /// The inputs the kind takes.
    pub inputs: &'static [InputSlot],
}

/// One named input of a kind.
#[derive(Debug, Clone, Copy)]
pub struct InputSlot {
    /// The key under `inputs`; `*` takes inputs of any name.
    pub name: &'static str,
    /// Kinds whose artifacts fit; a name ending in `.*` accepts the whole family (`train.*`).
    pub accepts: &'static [&'static str],
    /// Whether the slot takes a list of artifacts (`{ from = …, over = […] }`) or exactly one.
    pub many: bool,
    /// Whether a stage must fill the slot.
    pub required: bool,
    /// One line for `spdflow kinds KIND`.
    pub summary: &'static str,
}

/// A stage kind with its own parameter type. Implement this; [`StageKind`] follows.
pub trait Kind: Send + Sync + 'static {
    /// The parameters, with serde defaults for everything that has one and `deny_unknown_fields`.
    ///
    /// An enum's variants are chosen by the key `kind` of their table (`{ kind = "stochastic_recon", coeff = 1.0 }`);
    /// derive it externally tagged for serde and add `#[schemars(tag = "kind")]` for the schema.
    type Params: Serialize + DeserializeOwned + schemars::JsonSchema;

    /// The fixed facts.
    const INFO: KindInfo;

    /// Whether the processes of a run compute it together, if there are several ([`StageContext::world`]).
    const USES_RANKS: bool = false;

    /// The slots of which it matters what tells their artifacts apart. The kind has a parameter `labels`, a table that holds
    /// for each of these slots a list of texts; where a pipeline gives none, it gets the values of the axes.
    const LABELLED: &'static [&'static str] = &[];

    /// Returns what is wrong with parameters that have the right types, each at its path.
    fn validate(params: &Self::Params) -> Vec<ParamIssue> {
        let _ = params;
        Vec::new()
    }

    /// Puts what the parameters refer to outside the pipeline into them, so that it becomes part of the fingerprint,
    /// and returns the files that the stage will read.
    ///
    /// # Errors
    /// What is missing or wrong, each at its path.
    fn complete(params: Self::Params, outside: &Outside<'_>) -> Result<(Self::Params, OutsideFiles), Vec<ParamIssue>> {
        let _ = outside;
        Ok((params, OutsideFiles::new()))
    }

    /// Does the work: reads `context.inputs`, writes files into `context.out_dir`, says what it wrote.
    ///
    /// Must give equal bytes for equal inputs and parameters, whatever `context.threads` and however often it was
    /// interrupted. Long work polls [`StageContext::should_stop`], then saves its state in `context.scratch_dir` and
    /// returns [`StageError::Interrupted`]; called again, it continues from there.
    ///
    /// # Errors
    /// Any [`StageError`]; nothing of a failed stage is ever published.
    fn run(params: &Self::Params, context: &StageContext<'_>) -> Result<Summary, StageError>;
}

/// A mistake in a parameter that type checking cannot see: a number out of range, two settings that exclude each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamIssue {
    /// Where, in the notation of messages: `losses[1].coeff`. Empty for the whole table.
    pub path: String,
    /// What was expected and what was found: "must be in [0, 1], found 1.5".
    pub message: String,
    /// What to do about it, when we know.
    pub hint: Option<String>,
}

impl ParamIssue {
    /// Returns an issue at `path` without a hint.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None }
    }

    /// Adds a next step for the user.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What the engine sees of a kind.
pub trait StageKind: Send + Sync {
    /// Returns the fixed facts.
    fn info(&self) -> &'static KindInfo;

    /// Returns whether the processes of a run compute it together.
    fn uses_ranks(&self) -> bool {
        false
    }

    /// Returns the slots of which it matters what tells their artifacts apart ([`Kind::LABELLED`]).
    fn labelled(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the parameters with every default filled in and every number in its canonical type.
    ///
    /// # Errors
    /// All mistakes found, each with its place in the pipeline file.
    fn resolve(&self, params: &Value) -> Result<Value, Vec<DecodeError>>;

    /// As [`StageKind::resolve`], also putting what the parameters refer to outside the pipeline into them; returns the
    /// files among that too.
    ///
    /// # Errors
    /// All mistakes found, each with its place in the pipeline file.
    fn resolve_with(&self, params: &Value, outside: &Outside<'_>) -> Result<(Value, OutsideFiles), Vec<DecodeError>> {
        let _ = outside;
        Ok((self.resolve(params)?, OutsideFiles::new()))
    }

    /// Returns the JSON Schema of the parameters, with documentation and defaults.
    fn params_schema(&self) -> serde_json::Value;

    /// Runs the stage with parameters that [`StageKind::resolve`] returned.
    ///
    /// # Errors
    /// As [`Kind::run`].
    fn run(&self, params: &Value, context: &StageContext<'_>) -> Result<Summary, StageError>;
}

/// Makes a [`StageKind`] object out of a [`Kind`].
#[derive(Debug)]
pub struct Typed<K>(std::marker::PhantomData<fn() -> K>);

impl<K: Kind> StageKind for Typed<K> {
    fn info(&self) -> &'static KindInfo {
        const { &K::INFO }
    }

    fn uses_ranks(&self) -> bool {
        K::USES_RANKS
    }

    fn labelled(&self) -> &'static [&'static str] {
        K::LABELLED
    }

    fn resolve(&self, params: &Value) -> Result<Value, Vec<DecodeError>> {
        valid::<K>(params).map(|typed| Value::encode(&typed))
    }

    fn resolve_with(&self, params: &Value, outside: &Outside<'_>) -> Result<(Value, OutsideFiles), Vec<DecodeError>> {
        let completed = K::complete(valid::<K>(params)?, outside);
        let (typed, files) = completed.map_err(|issues| placed(params, issues))?;
        Ok((Value::encode(&typed), files))
    }

    fn params_schema(&self) -> serde_json::Value {
        schemars::schema_for!(K::Params).to_value()
    }

    fn run(&self, params: &Value, context: &StageContext<'_>) -> Result<Summary, StageError> {
        let typed: K::Params = params
            .decode()
            .map_err(|error| StageError::failed(format!("recorded parameters cannot be read: {error}")))?;
        K::run(&typed, context)
    }
}

fn valid<K: Kind>(params: &Value) -> Result<K::Params, Vec<DecodeError>> {
    let typed: K::Params = params.decode_all()?;
    let issues = K::validate(&typed);
    if issues.is_empty() { Ok(typed) } else { Err(placed(params, issues)) }
}

fn placed(params: &Value, issues: Vec<ParamIssue>) -> Vec<DecodeError> {
    issues.into_iter().map(|issue| DecodeError::at(params, issue)).collect()
}

/// The kinds a binary knows, by name.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Arc<dyn StageKind>>,
}

impl Registry {
    /// Returns an empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind.
    ///
    /// # Panics
    /// If the name is taken: two kinds of one name are a programming mistake.
    #[must_use]
    pub fn with<K: Kind>(mut self) -> Self {
        let previous = self.kinds.insert(K::INFO.name, Arc::new(Typed::<K>(std::marker::PhantomData)));
        assert!(previous.is_none(), "stage kind `{}` is registered twice", K::INFO.name);
        self
    }

    /// Returns the kind called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn StageKind>> {
        self.kinds.get(name).cloned()
    }

    /// Returns all kinds in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn StageKind>> {
        self.kinds.values()
    }
}

/// Everything a running stage may see and touch.
pub struct StageContext<'a> {
    /// The input artifacts by slot name; a slot with `many = false` holds exactly one.
    pub inputs: &'a BTreeMap<String, Vec<InputArtifact>>,
    /// The files outside the pipeline that [`Kind::complete`] asked for.
    pub files: &'a OutsideFiles,
    /// Where output files go. Empty at the start, also after an interruption.
    pub out_dir: &'a Path,
    /// Private to this fingerprint and kept when the stage is interrupted or killed: the place for checkpoints.
    pub scratch_dir: &'a Path,
    /// Where a stage that fails may leave a script which repeats that.
    pub repro_path: &'a Path,
    /// How many threads the stage may use; results must not depend on it.
    pub threads: usize,
    /// The GPUs that are the stage's alone while it runs, as many as its `resources` ask for.
    pub gpus: &'a [Gpu],
    /// Where to compute; on CUDA the first of the stage's GPUs, if it has any.
    pub device: Device,
    /// The processes that compute the stage together; all of them are given the same parameters and inputs.
    pub world: &'a dyn World,
    /// How much work a kill may cost at most.
    pub checkpoint_every: Duration,
    /// Where progress and log lines go.
    pub progress: &'a dyn ProgressSink,
    /// Raised when the user wants to stop, or the stage's time is up.
    pub stop: &'a StopFlag,
}

impl StageContext<'_> {
    /// Returns whether the stage should save its state and return [`StageError::Interrupted`].
    #[must_use]
    pub fn should_stop(&self) -> bool {
        self.stop.is_raised()
    }

    /// Returns the single artifact in `slot`.
    ///
    /// # Panics
    /// If the slot is not in the kind's table or is optional and empty: the engine fills required slots.
    #[must_use]
    pub fn input(&self, slot: &str) -> &InputArtifact {
        let artifacts = self.inputs.get(slot).map_or(&[][..], Vec::as_slice);
        assert!(artifacts.len() == 1, "input `{slot}` holds {} artifacts, expected one", artifacts.len());
        &artifacts[0]
    }

    /// Returns the artifacts in `slot`, none when an optional slot was left out.
    #[must_use]
    pub fn inputs(&self, slot: &str) -> &[InputArtifact] {
        self.inputs.get(slot).map_or(&[], Vec::as_slice)
    }
}

/// A request to stop, shared by the signal handler, the engine and the running stages.
#[derive(Debug, Clone, Default)]
pub struct StopFlag {
    is_raised: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl StopFlag {
    /// Returns a lowered flag.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a flag that is up when `raised` is true: signal handlers can set that and nothing else.
    #[must_use]
    pub fn shared(raised: Arc<AtomicBool>) -> Self {
        Self { is_raised: raised, deadline: None }
    }

    /// Returns a flag that is up when this one is, and from `deadline` on.
    #[must_use]
    pub fn until(&self, deadline: Option<Instant>) -> Self {
        let deadline = self.deadline.into_iter().chain(deadline).min();
        Self { is_raised: self.is_raised.clone(), deadline }
    }

    /// Asks everything that watches the flag to stop at its next safe point.
    pub fn raise(&self) {
        self.is_raised.store(true, Ordering::Release);
    }

    /// Returns whether the flag is up.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::Acquire) || self.is_late()
    }

    /// Returns whether the flag's own deadline has passed.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// An artifact of another stage, as a running stage sees it.
#[derive(Debug, Clone)]
pub struct InputArtifact {
    /// The instance that made it, for messages: `decompose[seed=0]`. Nothing of it may get into a file, since it is no part
    /// of the key; what may is in `labels` ([`Kind::LABELLED`]).
    pub instance: String,
    /// The kind that made it: `decompose.spd`.
    pub kind: String,
    /// The axis values of that instance, by axis name; for messages as well.
    pub axes: BTreeMap<String, String>,
    /// The digest of the whole artifact.
    pub digest: Digest,
    /// Where each file's bytes lie, by its name in the artifact. Read only.
    pub files: BTreeMap<String, PathBuf>,
}

impl InputArtifact {
    /// Returns where the bytes of `file` lie.
    ///
    /// # Errors
    /// [`StageError::Failed`] if the artifact has no such file.
    pub fn path(&self, file: &str) -> Result<&Path, StageError> {
        self.files.get(file).map(PathBuf::as_path).ok_or_else(|| {
            let have = self.files.keys().cloned().collect::<Vec<_>>().join("`, `");
            StageError::failed(format!("artifact of `{}` has no file `{file}`; it holds `{have}`", self.instance))
        })
    }
}

/// Where a running stage reports how far it is.
pub trait ProgressSink: Send + Sync {
    /// Reports that `step` of `total` is done; `headline` is one number worth watching, with its name.
    fn step(&self, step: u64, total: u64, headline: Option<(&str, f64)>);

    /// Says that the work continues from a checkpoint taken at `step`.
    fn resumed(&self, step: u64);

    /// Writes a line to the stage's log.
    fn log(&self, line: &str);
}

/// What a stage made.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The files written, by their path below `out_dir` with `/` as separator. A file not listed here is an error.
    pub files: Vec<OutputFile>,
    /// The few numbers that describe the result, in the order they should be shown; the first is the headline.
    pub metrics: Vec<(String, f64)>,
}

/// One file of an artifact.
#[derive(Debug, Clone)]
pub struct OutputFile {
    /// Path below the artifact's folder.
    pub path: String,
    /// `safetensors`, `parquet`, `json`, `svg`, `png`, `html`, `jsonl`.
    pub format: String,
    /// One line saying what is in it.
    pub summary: String,
}

impl Summary {
    /// Adds a file that was written.
    pub fn file(&mut self, path: impl Into<String>, format: impl Into<String>, summary: impl Into<String>) {
        self.files.push(OutputFile { path: path.into(), format: format.into(), summary: summary.into() });
    }

    /// Adds a headline number.
    pub fn metric(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.push((name.into(), value));
    }
}

/// Why a stage did not finish.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The stop flag was raised; state is saved in the scratch folder.
    #[error("interrupted")]
    Interrupted,
    /// The stage cannot be done.
    #[error("{message}")]
    Failed {
        /// What went wrong, lower case, without a final full stop.
        message: String,
        /// What to do about it, when we know.
        hint: Option<String>,
    },
    /// A file could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// "read", "write", "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StageError {
    /// Returns a failure without a hint.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None }
    }

    /// Returns a failure that tells the user what to do next.
    pub fn failed_with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: Some(hint.into()) }
    }

    /// Returns an adaptor for `map_err` on file operations.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
