//! The composition root: which stage kinds this binary knows.

use spdflow_engine::kind::Registry;

/// Returns every stage kind.
pub(crate) fn registry() -> Registry {
    spdflow_stages::registry()
}
