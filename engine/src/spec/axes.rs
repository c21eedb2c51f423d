//! `[axes]`: the values that stages are repeated over.

use std::borrow::Cow;
use std::collections::BTreeMap;

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
    let items = match &entry.value.data {
        Data::Table(range) => self::range(range, &entry.value, &what, mistakes).map(Cow::Owned),
        Data::Array(items) => Some(Cow::Borrowed(&items[..])),
        _ => {
            read::expected("a list or `{ range = [FIRST, END] }`", &what, &entry.value, mistakes);
            None
        }
    };
    if items.as_ref().is_some_and(|items| items.is_empty()) {
        mistakes.push(Diagnostic::new(format!("axis `{name}` has no values")).at(entry.value.origin.as_ref()));
    }
    let mut values: Vec<AxisValue> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for item in items.as_deref().unwrap_or_default() {
        let Some(text) = text_of(item, &what, mistakes) else { continue };
        if let Some(first) = known.get(&text).map(|position| &values[*position]) {
            mistakes.push(
                Diagnostic::new(format!("axis `{name}` holds `{text}` twice"))
                    .at(item.origin.as_ref())
                    .label(first.value.origin.as_ref(), "first here"),
            );
            continue;
        }
        known.insert(text.clone(), values.len());
        values.push(AxisValue { text, value: item.clone() });
    }
    Axis { name: name.to_owned(), values }
}

/// How many values a range may have: a bound against a slip of the finger.
const MAX_RANGE: i64 = 100_000;

/// Returns the numbers of `{ range = [FIRST, END] }` or `{ range = [FIRST, END, STEP] }`; the end is not one of them.
fn range(table: &Entries, whole: &Value, what: &str, mistakes: &mut Mistakes) -> Option<Vec<Value>> {
    read::refuse_unknown_keys(table, &["range"], &format!("in {what}"), mistakes);
    let form = "`{ range = [FIRST, END] }` or `{ range = [FIRST, END, STEP] }` with whole numbers";
    let Some(range) = table.get("range").map(|entry| &entry.value) else {
        let message = format!("missing key `range` in {what}");
        mistakes.push(Diagnostic::new(message).at(whole.origin.as_ref()).hint(format!("it is written {form}")));
        return None;
    };
    let number = |item: &Value| if let Data::Integer(number) = item.data { Some(number) } else { None };
    let numbers: Option<Vec<i64>> = match &range.data {
        Data::Array(items) => items.iter().map(number).collect(),
        _ => None,
    };
    let (first, end, step) = match numbers.as_deref() {
        Some(&[first, end]) => (first, end, 1),
        Some(&[first, end, step]) => (first, end, step),
        _ => {
            let message = format!("expected {form} as {what}, found `{range}`");
            mistakes.push(Diagnostic::new(message).at(range.origin.as_ref()));
            return None;
        }
    };
    let count = if step > 0 { end.saturating_sub(first).max(0) / step } else { 0 };
    if step < 1 || count >= MAX_RANGE {
        let problem = if step < 1 {
            "its step must be at least 1".to_owned()
        } else {
            format!("it has more than {MAX_RANGE} values")
        };
        mistakes.push(Diagnostic::new(format!("the range of {what}: {problem}")).at(range.origin.as_ref()));
        return None;
    }
    let numbers =
        std::iter::successors(Some(first), |number| number.checked_add(step)).take_while(|number| *number < end);
    Some(numbers.map(|number| Value { data: Data::Integer(number), origin: range.origin.clone() }).collect())
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
