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
mod layering;
mod locking;
mod logs;
mod misfits;
mod mistakes;
mod pipeline_files;
mod replay;
mod running;
mod scheduling;
mod selection;
mod support;
mod sweeps;
mod watching;
