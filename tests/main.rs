//! The integration tests of the binary, one module per subject.

mod command_stages;
mod commands;
mod contracts;
mod determinism;
mod diagnostics;
mod documents;
mod editor;
mod failures;
mod gc;
mod golden;
mod import_config;
mod kept_pipelines;
mod layering;
mod locking;
mod misfits;
mod mistakes;
mod pipeline_files;
mod running;
mod selection;
mod support;
mod sweeps;
mod watching;
