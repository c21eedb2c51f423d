//! What this program is, for records: version, commit, dependencies, compiler.

use spdflow_engine::cache::{BuildInfo, Digest};

/// The exact versions of everything this program was linked from.
const CARGO_LOCK: &[u8] = include_bytes!("../../../Cargo.lock");

/// Returns what `build.rs` found out, and the digest of `Cargo.lock`.
pub(crate) fn build_info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: env!("SPDFLOW_GIT_COMMIT").to_owned(),
        cargo_lock: Digest::of(CARGO_LOCK),
        sources: env!("SPDFLOW_SOURCES").parse().ok(),
        rustc: env!("SPDFLOW_RUSTC").to_owned(),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
    }
}
