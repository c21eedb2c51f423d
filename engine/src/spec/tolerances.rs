//! `[stage.NAME.tolerances]`: how far the files of a stage may depart when an audit makes them again; never part of its
//! fingerprint.
//!
//! A key is the name of a file or a glob, a value `"exact"`, `"any"` or `{ absolute = …, relative = … }`. The first key
//! that matches a file counts.

use serde::Deserialize;

use super::Mistakes;
use super::read::{Entries, in_written_order, table};
use crate::audit::format::Tolerance;
use crate::diagnostic::Diagnostic;
use crate::pipeline::{Allowance, Allowed};

/// A `tolerances` entry in its table form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Written {
    absolute: f64,
    relative: f64,
}

/// Returns what the files of `stage` may depart by.
pub(super) fn tolerances(stage: &str, entries: &Entries, mistakes: &mut Mistakes) -> Vec<Allowance> {
    let what = format!("`tolerances` of stage `{stage}`");
    let Some(entries) = entries.get("tolerances").and_then(|entry| table(&entry.value, &what, mistakes)) else {
        return Vec::new();
    };
    let mut tolerances = Vec::new();
    for (files, entry) in in_written_order(entries) {
        let what = format!("`{files}` in {what}");
        let allowed = match entry.value.as_str() {
            Some("exact") => Allowed::Within(Tolerance::EXACT),
            Some("any") => Allowed::Anything,
            Some(other) => {
                let message = format!("{what}: expected `\"exact\"`, `\"any\"` or a table, found `\"{other}\"`");
                let hint = "as in `{ relative = 1e-5, absolute = 1e-7 }`";
                mistakes.push(Diagnostic::new(message).at(entry.place()).hint(hint));
                continue;
            }
            None => match entry.value.decode_all::<Written>() {
                Ok(Written { absolute, relative })
                    if [absolute, relative].iter().all(|part| (0.0..f64::INFINITY).contains(part)) =>
                {
                    Allowed::Within(Tolerance { absolute, relative })
                }
                Ok(_) => {
                    let message = format!("{what}: a tolerance is a number of at least 0");
                    mistakes.push(Diagnostic::new(message).at(entry.place()));
                    continue;
                }
                Err(errors) => {
                    mistakes.extend(errors.into_iter().map(|error| {
                        let message = format!("{what}: {}", error.message);
                        Diagnostic::new(message).at(error.origin.as_ref()).hint_if_any(error.hint)
                    }));
                    continue;
                }
            },
        };
        tolerances.push(Allowance { files: files.clone(), allowed });
    }
    tolerances
}
