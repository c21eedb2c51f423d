//! What varies, and what it is chosen from, as a sweep writes it.

use std::collections::BTreeSet;

use super::{Choice, Home, Step, SweptKey, written};
use crate::diagnostic::Diagnostic;
use crate::spec::Mistakes;
use crate::spec::read::{self, Entries};
use crate::value::{Data, Entry, KIND, Value};

/// The keys of a table that says what to choose from.
const CHOICES: [&str; 4] = ["values", "uniform", "log_uniform", "integers"];

pub(super) fn in_order(entries: Option<&Entries>) -> Vec<(&String, &Entry)> {
    entries.map(read::in_written_order).unwrap_or_default()
}

/// Walks through what mirrors a table of parameters and collects the choices in it, in the order of the file.
pub(super) fn collect(
    value: &Value,
    home: &Home,
    steps: &mut Vec<Step>,
    keys: &mut Vec<SweptKey>,
    mistakes: &mut Mistakes,
) {
    match &value.data {
        Data::Table(entries) if entries.keys().any(|key| CHOICES.contains(&key.as_str())) => {
            let path = written(steps);
            if let Some(choice) = choice(entries, value, &path, mistakes) {
                keys.push(SweptKey { home: home.clone(), steps: steps.clone(), choice, origin: value.origin.clone() });
            }
        }
        Data::Table(entries) => {
            for (key, entry) in read::in_written_order(entries) {
                steps.push(Step::Key(key.clone()));
                collect(&entry.value, home, steps, keys, mistakes);
                steps.pop();
            }
        }
        Data::Array(items) if !items.iter().all(|item| matches!(item.data, Data::Table(_))) => {
            let message =
                format!("`{}` of a sweep is a list, which does not say how to choose from it", written(steps));
            let hint = format!("to try each of its items write `{{ values = {value} }}`");
            mistakes.push(Diagnostic::new(message).at(value.origin.as_ref()).hint(hint));
        }
        Data::Array(items) => collect_items(items, home, steps, keys, mistakes),
        _ => {
            let what = format!("`{}` of a sweep", written(steps));
            read::expected("what to choose from, such as `{ values = [1, 2] }`,", &what, value, mistakes);
        }
    }
}

/// The items of a list are told apart by their `kind`.
fn collect_items(
    items: &[Value],
    home: &Home,
    steps: &mut Vec<Step>,
    keys: &mut Vec<SweptKey>,
    mistakes: &mut Mistakes,
) {
    let mut seen = BTreeSet::new();
    for item in items {
        let what = format!("an item of `{}` of a sweep", written(steps));
        let Some(entries) = read::table(item, &what, mistakes) else { continue };
        let Some(kind) = entries.get(KIND).and_then(|entry| entry.value.as_str()) else {
            let message = format!("{what} lacks its `kind`, by which the pipeline's item is found");
            mistakes.push(Diagnostic::new(message).at(item.origin.as_ref()));
            continue;
        };
        if !seen.insert(kind.to_owned()) {
            let message = format!("`{}` of a sweep has two items of kind `{kind}`", written(steps));
            mistakes.push(Diagnostic::new(message).at(item.origin.as_ref()));
        }
        steps.push(Step::Kind(kind.to_owned()));
        for (key, entry) in read::in_written_order(entries).into_iter().filter(|(key, _)| *key != KIND) {
            steps.push(Step::Key(key.clone()));
            collect(&entry.value, home, steps, keys, mistakes);
            steps.pop();
        }
        steps.pop();
    }
}

fn choice(entries: &Entries, value: &Value, path: &str, mistakes: &mut Mistakes) -> Option<Choice> {
    if entries.len() > 1 {
        let keys: Vec<_> = entries.keys().map(|key| format!("`{key}`")).collect();
        let message = format!("`{path}` of a sweep is chosen in one way, found {}", keys.join(" and "));
        mistakes.push(Diagnostic::new(message).at(value.origin.as_ref()));
        return None;
    }
    let (way, entry) = entries.first_key_value()?;
    let what = format!("`{way}` of `{path}` of a sweep");
    let items = read::list(&entry.value, &what, mistakes)?;
    let wrong = |message: String, mistakes: &mut Mistakes| {
        mistakes.push(Diagnostic::new(message).at(entry.value.origin.as_ref()));
        None
    };
    if way == "values" {
        if items.is_empty() {
            return wrong(format!("{what} is an empty list"), mistakes);
        }
        return Some(Choice::Values(items.to_vec()));
    }
    let number = |value: &Value| match value.data {
        Data::Integer(number) => Some(number as f64),
        Data::Float(number) => Some(number),
        _ => None,
    };
    let expectation = if way == "integers" { "two whole numbers" } else { "two numbers" };
    let ([low, high], false) = (items, items.iter().any(|item| number(item).is_none())) else {
        return wrong(format!("expected {expectation} `[LOW, HIGH]` as {what}, found `{}`", entry.value), mistakes);
    };
    let (from, to) = (number(low)?, number(high)?);
    if from >= to {
        return wrong(
            format!("the first number of {what} must be below the second, found `{}`", entry.value),
            mistakes,
        );
    }
    match (way.as_str(), &low.data, &high.data) {
        ("uniform", ..) => Some(Choice::Uniform(from, to)),
        ("log_uniform", ..) if from > 0.0 => Some(Choice::LogUniform(from, to)),
        ("log_uniform", ..) => wrong(format!("{what} must be above 0, found `{}`", entry.value), mistakes),
        (_, Data::Integer(from), Data::Integer(to)) => Some(Choice::Integers(*from, *to)),
        _ => wrong(format!("expected {expectation} `[LOW, HIGH]` as {what}, found `{}`", entry.value), mistakes),
    }
}
