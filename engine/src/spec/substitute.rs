//! Replaces `${name}` in the parameters of one instance.
//!
//! Only string values are looked at. A string that is exactly `"${x}"` becomes the value of `x`, with its type;
//! within a longer string the value's text is put in. `$${` stands for `${` itself.

use std::collections::{BTreeMap, BTreeSet};

use super::Mistakes;
use super::axes::AxisValue;
use super::names::is_name_char;
use super::overrides::Variables;
use crate::diagnostic::Diagnostic;
use crate::suggest::hint_among;
use crate::value::{Data, Origin, Value};

/// What names stand for in one instance, and what was replaced.
pub(super) struct Substitution<'a> {
    pub(super) stage: &'a str,
    /// The instance's point, by axis.
    pub(super) point: &'a BTreeMap<&'a str, &'a AxisValue>,
    /// All axes of the pipeline, for messages.
    pub(super) axes: &'a [super::axes::Axis],
    pub(super) variables: &'a Variables,
    /// The variables some parameter asked for.
    pub(super) used: &'a mut BTreeSet<String>,
    /// What was replaced: place, name and the value that now stands there.
    pub(super) replaced: Vec<(Origin, String, Value)>,
}

/// Returns whether any string in the value holds `${`.
pub(super) fn has_placeholders(value: &Value) -> bool {
    match &value.data {
        Data::String(text) => text.contains("${"),
        Data::Array(items) => items.iter().any(has_placeholders),
        Data::Table(entries) => entries.values().any(|entry| has_placeholders(&entry.value)),
        _ => false,
    }
}

impl Substitution<'_> {
    /// Replaces every placeholder in the value.
    pub(super) fn apply(&mut self, value: &mut Value, mistakes: &mut Mistakes) {
        match &mut value.data {
            Data::Array(items) => items.iter_mut().for_each(|item| self.apply(item, mistakes)),
            Data::Table(entries) => entries.values_mut().for_each(|entry| self.apply(&mut entry.value, mistakes)),
            Data::String(text) if text.contains("${") => {
                let text = std::mem::take(text);
                let origin = value.origin.clone();
                value.data = self.replaced_text(&text, origin.as_ref(), mistakes);
            }
            _ => {}
        }
    }

    fn replaced_text(&mut self, text: &str, origin: Option<&Origin>, mistakes: &mut Mistakes) -> Data {
        if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
            && !name.contains(['}', '{'])
        {
            return match self.meaning(name, origin, mistakes) {
                Some(value) => value.data,
                None => Data::String(text.to_owned()),
            };
        }
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find("${") {
            let (before, after) = (&rest[..dollar], &rest[dollar + 2..]);
            if let Some(escaped) = before.strip_suffix('$') {
                result.push_str(escaped);
                result.push_str("${");
                rest = after;
                continue;
            }
            result.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                let message =
                    format!("`${{` is not closed in {}", Value::new(Data::String(text.to_owned())).described());
                mistakes.push(Diagnostic::new(message).at(origin).hint("a literal `${` is written `$${`"));
                return Data::String(text.to_owned());
            };
            if let Some(value) = self.meaning(name, origin, mistakes) {
                match &value.data {
                    Data::String(inner) => result.push_str(inner),
                    _ => result.push_str(&value.to_string()),
                }
            }
            rest = after;
        }
        result.push_str(rest);
        Data::String(result)
    }

    fn meaning(&mut self, name: &str, origin: Option<&Origin>, mistakes: &mut Mistakes) -> Option<Value> {
        let found = if let Some(axis_value) = self.point.get(name) {
            axis_value.value.clone()
        } else if let Some(entry) = self.variables.0.get(name) {
            self.used.insert(name.to_owned());
            entry.value.clone()
        } else {
            mistakes.push(self.unknown(name, origin));
            return None;
        };
        self.replaced.extend(origin.map(|origin| (origin.clone(), name.to_owned(), found.clone())));
        Some(found)
    }

    fn unknown(&self, name: &str, origin: Option<&Origin>) -> Diagnostic {
        let stage = self.stage;
        if self.axes.iter().any(|axis| axis.name == name) {
            return Diagnostic::new(format!(
                "stage `{stage}` does not run over axis `{name}`, so `${{{name}}}` has no value"
            ))
            .at(origin)
            .hint(format!("add it to the stage's matrix: `matrix = [\"{name}\"]`"));
        }
        let diagnostic = Diagnostic::new(format!("`${{{name}}}` has no value")).at(origin);
        if name.is_empty() || !name.chars().all(is_name_char) {
            return diagnostic.hint("between the braces stands the name of an axis, or of a value given with `--set`");
        }
        let known = self.point.keys().copied().chain(self.variables.0.keys().map(String::as_str));
        let hint = hint_among(name, "known names", known.collect::<Vec<_>>());
        diagnostic.hint_if_any(hint).hint(format!("give it one with `--set {name}=VALUE`"))
    }
}
