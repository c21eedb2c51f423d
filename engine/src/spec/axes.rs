//! `[axes]`: the values that stages are repeated over.

use super::read::{self, Entries};
use super::{Mistakes, names};
use crate::diagnostic::Diagnostic;
use crate::value::{Data, Entry, Value};

/// A named list of values.
#[derive(Debug)]
pub(super) struct Axis {
    pub(super) name: String,
    /// In the order of the file; distinct in their text form.
    pub(super) values: Vec<AxisValue>,
}

/// One value of an axis.
#[derive(Debug)]
pub(super) struct AxisValue {
    /// As it appears in `decompose[seed=0]` and in folder names.
    pub(super) text: String,
    /// As it replaces `"${seed}"`.
    pub(super) value: Value,
}

/// Returns the axes; one with mistakes keeps the values that have none.
pub(super) fn axes(entries: &Entries, mistakes: &mut Mistakes) -> Vec<Axis> {
    entries.iter().map(|(name, entry)| axis(name, entry, mistakes)).collect()
}

fn axis(name: &str, entry: &Entry, mistakes: &mut Mistakes) -> Axis {
    if let Some(mistake) = names::mistake_in_name(name) {
        mistakes.push(Diagnostic::new(format!("axis `{name}`: {mistake}")).at(entry.place()));
    }
    let what = format!("axis `{name}`");
    let items = read::list(&entry.value, &what, mistakes);
    if items.is_some_and(<[Value]>::is_empty) {
        mistakes.push(Diagnostic::new(format!("axis `{name}` has no values")).at(entry.value.origin.as_ref()));
    }
    let mut values: Vec<AxisValue> = Vec::new();
    for item in items.unwrap_or_default() {
        let Some(text) = text_of(item, &what, mistakes) else { continue };
        if let Some(first) = values.iter().find(|value| value.text == text) {
            mistakes.push(
                Diagnostic::new(format!("axis `{name}` holds `{text}` twice"))
                    .at(item.origin.as_ref())
                    .label(first.value.origin.as_ref(), "first here"),
            );
            continue;
        }
        values.push(AxisValue { text, value: item.clone() });
    }
    Axis { name: name.to_owned(), values }
}

fn text_of(item: &Value, what: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = match &item.data {
        Data::Bool(_) | Data::Integer(_) | Data::Float(_) => item.to_string(),
        Data::String(text) => text.clone(),
        Data::Array(_) | Data::Table(_) => {
            read::expected("a number, a string or a truth value", &format!("a value of {what}"), item, mistakes);
            return None;
        }
    };
    match names::mistake_in_axis_value(&text) {
        Some(mistake) => {
            mistakes.push(Diagnostic::new(format!("{what}: {mistake}")).at(item.origin.as_ref()));
            None
        }
        None => Some(text),
    }
}
