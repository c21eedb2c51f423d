//! Reading the files that are compared.

use std::fmt;
use std::fs;
use std::path::Path;

use spdflow_engine::audit::format::Unreadable;

/// Returns what an error of one of the two files becomes.
pub(super) fn unreadable<E: fmt::Display>(is_recorded: bool) -> impl Fn(E) -> Unreadable + Copy {
    move |error| Unreadable { is_recorded, reason: error.to_string() }
}

/// Returns the bytes of the recorded file and of the one made anew.
pub(super) fn both(recorded: &Path, made: &Path) -> Result<(Vec<u8>, Vec<u8>), Unreadable> {
    let recorded = fs::read(recorded).map_err(unreadable(true))?;
    Ok((recorded, fs::read(made).map_err(unreadable(false))?))
}
