//! How a run is made: its part of the pipeline, what it may use, whom it obeys.

use std::time::Duration;

use spdflow_cache::BuildInfo;

use crate::capacity::Gpu;
use crate::kind::{Device, StopFlag};
use crate::lock::Lock;
use crate::plan::Scope;
use crate::run::RemoteOptions;

/// Which of the stages that could begin is begun first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The one with the most time behind it; among equals the first of the pipeline.
    #[default]
    Urgent,
    /// The last of the pipeline: for audits, whose results must not depend on the order.
    Reversed,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Which part of the pipeline.
    pub scope: Scope,
    /// How many stages may run at once.
    pub jobs: usize,
    /// Which of them are begun first.
    pub order: Order,
    /// How many threads they share.
    pub threads: usize,
    /// How much memory they share; that of the machine where absent.
    pub memory_bytes: Option<u64>,
    /// The GPUs that are given out.
    pub gpus: Vec<Gpu>,
    /// Whether what does not depend on a failed stage is still done.
    pub keep_going: bool,
    /// Where to compute.
    pub device: Device,
    /// How many processes compute the stages that can be divided; the executor has to know them.
    pub ranks: usize,
    /// How much work a kill may cost at most.
    pub checkpoint_every: Duration,
    /// What every key and result must be, if the run may make nothing else.
    pub locked: Option<Lock>,
    /// Where results are looked for before they are computed, and sent after.
    pub remote: Option<RemoteOptions>,
    /// The arguments of `spdflow run` that say what is run, but for the file: for the script that repeats the run.
    pub arguments: Vec<String>,
    /// Raised when the user wants to stop.
    pub stop: StopFlag,
    /// The program, for records.
    pub build: BuildInfo,
}
