//! The composition root: which stage kinds and file formats this binary knows.

use spdflow_engine::audit::format::Formats;
use spdflow_engine::kind::Registry;

/// Returns every stage kind.
pub(crate) fn registry() -> Registry {
    spdflow_stages::registry()
}

/// Returns every file format.
pub(crate) fn formats() -> Formats {
    Formats::default()
}
