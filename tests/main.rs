//! The integration tests of the binary, one module per subject.

mod audit;
mod bundles;
mod command_stages;
mod commands;
mod contracts;
mod crashes;
mod determinism;
mod diagnostics;
mod documents;
mod editor;
mod exports;
mod failures;
mod gc;
mod golden;
#[cfg(feature = "nccl")]
mod gpus;
mod import_config;
mod kept_pipelines;
mod keys;
mod layering;
mod locking;
mod logs;
mod misfits;
mod mistakes;
mod pipeline_files;
mod ranks;
mod remotes;
mod replay;
mod running;
mod scheduling;
mod selection;
mod staleness;
mod support;
mod sweeps;
mod trace;
mod watching;
