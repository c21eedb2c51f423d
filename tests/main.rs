//! The integration tests of the binary, one module per subject.

mod diagnostics;
mod documents;
mod layering;
mod running;
mod support;
