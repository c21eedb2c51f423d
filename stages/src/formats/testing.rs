//! What tests of formats share: two files of given bytes, compared by the format of a name.

use std::fs;

use spdflow_engine::audit::format::{Difference, Quote, Tolerance, Unreadable};

use super::formats;

/// Returns how two files of these bytes differ.
pub(super) fn difference(
    format: &str,
    recorded: &[u8],
    made: &[u8],
    tolerance: Tolerance,
) -> Result<Option<Difference>, Unreadable> {
    let folder = tempfile::tempdir().unwrap();
    let [left, right] = ["left", "right"].map(|name| folder.path().join(name));
    fs::write(&left, recorded).unwrap();
    fs::write(&right, made).unwrap();
    formats().get(format).compare(&left, &right, tolerance)
}

/// Returns the same as the text that a reader gets.
pub(super) fn compared(
    format: &str,
    recorded: &[u8],
    made: &[u8],
    tolerance: Tolerance,
) -> Result<Option<String>, Unreadable> {
    Ok(difference(format, recorded, made, tolerance)?.map(|found| found.to_string()))
}

/// Returns what a file of these bytes quotes.
pub(super) fn quotes(format: &str, bytes: &[u8]) -> Vec<Quote> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    formats().get(format).quotes(&path).unwrap()
}
