//! Runs stage kinds in unit tests, without an engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spdflow_engine::cache::Digest;
use spdflow_engine::kind::{Device, InputArtifact, Kind, ProgressSink, StageContext, StageError, StopFlag, Summary};
use spdflow_engine::ranks::Alone;

/// Held by a test while its ranks are linked by NCCL. A GPU does what it is asked for in one order: of two worlds that
/// share two GPUs, one could wait on the first for what waits behind the other on the second.
#[cfg(feature = "nccl")]
pub(crate) fn only_linked_world() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Silent;

impl ProgressSink for Silent {
    fn step(&self, _: u64, _: u64, _: Option<(&str, f64)>) {}
    fn resumed(&self, _: u64) {}
    fn log(&self, _: &str) {}
}

/// Returns an artifact of these files.
pub(crate) fn artifact(instance: &str, kind: &str, files: BTreeMap<String, PathBuf>) -> InputArtifact {
    let digest = Digest::of(instance.as_bytes());
    InputArtifact { instance: instance.to_owned(), kind: kind.to_owned(), axes: BTreeMap::new(), digest, files }
}

/// Returns an artifact of the files in `folder`.
pub(crate) fn artifact_in(folder: &Path, instance: &str, kind: &str) -> InputArtifact {
    let entries = std::fs::read_dir(folder).expect("a folder made by the test").map(|entry| entry.expect("an entry"));
    let files = entries.map(|e| (e.file_name().into_string().expect("a name in UTF-8"), e.path())).collect();
    artifact(instance, kind, files)
}

/// Runs a kind with `threads` threads, its output in `out`.
pub(crate) fn run_kind<K: Kind>(
    params: &K::Params,
    inputs: &BTreeMap<String, Vec<InputArtifact>>,
    out: &Path,
    threads: usize,
) -> Result<Summary, StageError> {
    run_kind_on::<K>(Device::Cpu, params, inputs, out, threads)
}

/// As [`run_kind`], on `device`.
pub(crate) fn run_kind_on<K: Kind>(
    device: Device,
    params: &K::Params,
    inputs: &BTreeMap<String, Vec<InputArtifact>>,
    out: &Path,
    threads: usize,
) -> Result<Summary, StageError> {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let stop = StopFlag::new();
    let context = StageContext {
        inputs,
        files: &BTreeMap::new(),
        out_dir: out,
        scratch_dir: scratch.path(),
        repro_path: &scratch.path().join("repro.sh"),
        threads,
        gpus: &[],
        device,
        world: &Alone,
        checkpoint_every: Duration::from_secs(30),
        progress: &Silent,
        stop: &stop,
    };
    K::run(params, &context)
}
