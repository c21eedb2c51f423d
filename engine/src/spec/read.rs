//! Small readers that say what they expected.

use std::collections::BTreeMap;

use super::Mistakes;
use crate::diagnostic::Diagnostic;
use crate::suggest::hint_among;
use crate::value::{Data, Entry, Value};

/// A table's entries.
pub(super) type Entries = BTreeMap<String, Entry>;

/// Writes down that `what` is not of the expected type.
pub(super) fn expected(expectation: &str, what: &str, value: &Value, mistakes: &mut Mistakes) {
    let message = format!("expected {expectation} as {what}, found {}", value.described());
    mistakes.push(Diagnostic::new(message).at(value.origin.as_ref()));
}

/// Returns the entries of the table `what`.
pub(super) fn table<'v>(value: &'v Value, what: &str, mistakes: &mut Mistakes) -> Option<&'v Entries> {
    match &value.data {
        Data::Table(entries) => Some(entries),
        _ => {
            expected("a table", what, value, mistakes);
            None
        }
    }
}

/// Returns the items of the list `what`.
pub(super) fn list<'v>(value: &'v Value, what: &str, mistakes: &mut Mistakes) -> Option<&'v [Value]> {
    match &value.data {
        Data::Array(items) => Some(items),
        _ => {
            expected("a list", what, value, mistakes);
            None
        }
    }
}

/// Returns the text `what`.
pub(super) fn text<'v>(value: &'v Value, what: &str, mistakes: &mut Mistakes) -> Option<&'v str> {
    match &value.data {
        Data::String(text) => Some(text),
        _ => {
            expected("a string", what, value, mistakes);
            None
        }
    }
}

/// Returns the texts of the list `what`, each with its value.
pub(super) fn texts<'v>(value: &'v Value, what: &str, mistakes: &mut Mistakes) -> Vec<(&'v str, &'v Value)> {
    let items = list(value, what, mistakes).unwrap_or_default();
    items.iter().filter_map(|item| Some((text(item, &format!("an item of {what}"), mistakes)?, item))).collect()
}

/// Writes down every key that is not among `known`.
pub(super) fn refuse_unknown_keys(entries: &Entries, known: &[&str], place: &str, mistakes: &mut Mistakes) {
    for (key, entry) in entries.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
        mistakes.push(
            Diagnostic::new(format!("unknown key `{key}` {place}")).at(entry.place()).hint_if_any(hint_among(
                key,
                "known keys",
                known.iter().copied(),
            )),
        );
    }
}

/// Returns entries in the order they were written: those of a base before those of the file over it.
pub(super) fn in_written_order(entries: &Entries) -> Vec<(&String, &Entry)> {
    let mut ordered: Vec<_> = entries.iter().collect();
    // A higher source is a deeper base.
    ordered.sort_by_key(|(_, entry)| entry.place().map(|origin| (std::cmp::Reverse(origin.source), origin.span.start)));
    ordered
}
