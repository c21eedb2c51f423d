//! The integration tests of the binary, one module per subject.

mod command_stages;
mod commands;
mod contracts;
mod crashes;
mod determinism;
mod diagnostics;
mod documents;
mod editor;
mod failures;
mod gc;
mod golden;
mod import_config;
mod keys;
mod layering;
mod locking;
mod misfits;
mod mistakes;
mod pipeline_files;
mod remotes;
mod running;
mod selection;
mod staleness;
mod support;
mod sweeps;
mod watching;
