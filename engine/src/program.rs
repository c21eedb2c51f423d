//! Which program this is, so that what one program has kept of a pipeline is never read by another.

use std::fs;

use spdflow_cache::{BuildInfo, Stamp};

/// Returns a text that no other build of the program has; `None` if that cannot be told.
///
/// Version and commit are not enough: during development many programs are built of one commit. So the stamp of the
/// program's own file is part of it, by way of `/proc`, which shows the file that runs even if another has taken its
/// place. A file that has only just been written could change again without a change of its stamp (`Stamp`).
#[must_use]
pub fn identity(build: &BuildInfo) -> Option<String> {
    let stamp = Stamp::of(&fs::metadata("/proc/self/exe").ok()?);
    if !stamp.is_settled(Stamp::now()) {
        return None;
    }
    let BuildInfo { version, git_commit, cargo_lock, sources, rustc, profile } = build;
    Some(format!("{version} {git_commit} {cargo_lock} {sources:?} {rustc} {profile} {stamp:?}"))
}
