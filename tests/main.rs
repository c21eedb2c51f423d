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
mod layering;
mod locking;
mod misfits;
mod mistakes;
mod running;
mod selection;
mod support;
mod sweeps;
