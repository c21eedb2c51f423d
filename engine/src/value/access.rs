//! Looking into a [`Value`] and naming what is found there.

use std::fmt;

use super::{Data, Entry, Origin, Value};

impl Value {
    /// Returns a value that was not written anywhere.
    #[must_use]
    pub fn new(data: Data) -> Self {
        Self { data, origin: None }
    }

    /// Returns the value under `key`, if this is a table that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.data {
            Data::Table(entries) => entries.get(key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// Returns the text, if this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns what this is, for messages: "the number `3`", "a string `\"x\"`", "a table".
    #[must_use]
    pub(crate) fn described(&self) -> String {
        match &self.data {
            Data::Bool(flag) => format!("`{flag}`"),
            Data::Integer(_) | Data::Float(_) => format!("the number `{self}`"),
            Data::String(text) => {
                let shown: String = text.chars().take(60).collect();
                let rest = if shown.len() < text.len() { "…" } else { "" };
                format!("a string `{}{rest}`", quoted(&shown))
            }
            Data::Array(_) => "a list".to_owned(),
            Data::Table(_) => "a table".to_owned(),
        }
    }
}

/// Writes the value as TOML would, tables inline.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.data {
            Data::Bool(flag) => write!(f, "{flag}"),
            Data::Integer(number) => write!(f, "{number}"),
            // `{:?}` is the shortest text that reads back as the same number, and always has a point or exponent.
            Data::Float(number) => write!(f, "{number:?}"),
            Data::String(text) => f.write_str(&quoted(text)),
            Data::Array(items) => {
                f.write_str("[")?;
                for (position, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if position > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Data::Table(entries) if entries.is_empty() => f.write_str("{}"),
            Data::Table(entries) => {
                for (position, (key, entry)) in entries.iter().enumerate() {
                    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
                    let key = if is_bare { key.clone() } else { quoted(key) };
                    write!(f, "{}{key} = {}", if position > 0 { ", " } else { "{ " }, entry.value)?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// Two values are equal when they hold the same data, wherever it was written.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Table(a), Self::Table(b)) => a == b,
            _ => false,
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Entry {
    /// Returns an entry that was not written anywhere.
    #[must_use]
    pub fn new(value: Value) -> Self {
        Self { key_origin: None, value }
    }

    /// Returns where to point when the entry as a whole is meant: its key, else its value.
    #[must_use]
    pub fn place(&self) -> Option<&Origin> {
        self.key_origin.as_ref().or(self.value.origin.as_ref())
    }
}

/// Returns `text` as a TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
