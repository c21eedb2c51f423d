//! What this program knows: kinds of stages and file formats.

use std::sync::OnceLock;

use spdflow_engine::audit::format::Formats;
use spdflow_engine::kind::Registry;

static KNOWN: OnceLock<(Registry, Formats)> = OnceLock::new();

/// Sets what the program knows, once, before anything else is done.
pub(crate) fn know(kinds: Registry, formats: Formats) {
    // A second call in one process is one of a test that shares it; the first counts.
    let _ = KNOWN.set((kinds, formats));
}

fn known() -> &'static (Registry, Formats) {
    KNOWN.get_or_init(|| (spdflow_stages::registry(), spdflow_stages::formats::formats()))
}

/// Returns every stage kind.
pub(crate) fn registry() -> Registry {
    known().0.clone()
}

/// Returns every file format.
pub(crate) fn formats() -> Formats {
    known().1.clone()
}
