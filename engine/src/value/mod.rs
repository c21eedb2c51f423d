//! Values of a pipeline file: TOML's types, each remembering where it was written.
//!
//! One tree serves parsing, overrides, typed decoding and hashing. Decoding and encoding go through serde
//! (`de.rs`, `ser.rs`) with one convention: an enum is a table whose key `kind` names the variant, or a plain
//! string for a variant without fields. So errors inside such a table still point at the exact key.

mod access;
mod de;
mod json;
mod path;
mod ser;
pub mod toml;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kind::ParamIssue;
pub(crate) use path::{KeyPath, Step, origin_of};

/// The key of a table that names an enum's variant.
pub(crate) const KIND: &str = "kind";
/// The key under which a variant holds what is no table.
pub(crate) const VALUE: &str = "value";

/// A place in a source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Which source: an index into the list of texts a pipeline was read from (file, base files, `--set` arguments).
    pub source: usize,
    /// Byte range in that text.
    pub span: std::ops::Range<usize>,
}

/// A value with its place, if it came from a text.
#[derive(Debug, Clone)]
pub struct Value {
    /// The value itself.
    pub data: Data,
    /// Where it was written.
    pub origin: Option<Origin>,
}

/// The data of a [`Value`].
#[derive(Debug, Clone)]
pub enum Data {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or exponent.
    Float(f64),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// A table; sorted, so that the order of keys in the file never matters.
    Table(BTreeMap<String, Entry>),
}

/// A value in a table, with the place of its key.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where the key was written.
    pub key_origin: Option<Origin>,
    /// The value.
    pub value: Value,
}

/// A value that does not fit the type expected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Where in the value: `losses[1].coeff`.
    pub path: String,
    /// The place in the source text, when the value came from one.
    pub origin: Option<Origin>,
    /// What was expected and what was found.
    pub message: String,
    /// A next step, such as a similar name that does exist.
    pub hint: Option<String>,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "`{}`: {}", self.path, self.message) }
    }
}

impl std::error::Error for DecodeError {}

impl DecodeError {
    /// Returns the error for `issue` found in `params`, pointing at the value the issue's path names, or at the
    /// nearest enclosing value that was written in a file (the issue may be about a default).
    #[must_use]
    pub fn at(params: &Value, issue: ParamIssue) -> Self {
        let origin = origin_of(params, &issue.path).cloned();
        Self { path: issue.path, origin, message: issue.message, hint: issue.hint }
    }
}

impl Value {
    /// Returns the value as a `T`.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        self.decode_all().map_err(|mut errors| errors.swap_remove(0))
    }

    /// Returns the value as a `T`, or everything that does not fit.
    ///
    /// # Errors
    /// All mistakes, in the order of the source text.
    pub fn decode_all<T: DeserializeOwned>(&self) -> Result<T, Vec<DecodeError>> {
        de::decode_all(self)
    }

    /// Returns `value` as a tree without origins.
    ///
    /// # Panics
    /// If the type cannot be expressed (maps with keys that are not texts, bytes, NaN): parameters never hold such.
    #[must_use]
    pub fn encode<T: Serialize>(value: &T) -> Self {
        ser::encode(value).unwrap_or_else(|error| panic!("parameters cannot be written as a pipeline would: {error}"))
    }
}

#[cfg(test)]
mod tests;
