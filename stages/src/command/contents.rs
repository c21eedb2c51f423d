//! Parameters of a command that may be written in several ways.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Names, and after a look outside the pipeline what is behind them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Contents {
    /// Names alone.
    Named(Vec<String>),
    /// Names with digests or values.
    Known(BTreeMap<String, String>),
}

impl Default for Contents {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl Contents {
    /// Returns each name with its path in the parameters and what is expected behind it.
    pub(super) fn entries(&self, parameter: &str) -> Vec<(String, &str, Option<&str>)> {
        match self {
            Self::Named(names) => names
                .iter()
                .enumerate()
                .map(|(index, name)| (format!("{parameter}[{index}]"), name.as_str(), None))
                .collect(),
            Self::Known(known) => known
                .iter()
                .map(|(name, content)| (below(parameter, name), name.as_str(), Some(content.as_str())))
                .collect(),
        }
    }

    /// Returns what is behind each name; nothing before the look outside.
    pub(super) fn known(&self) -> impl Iterator<Item = (&String, &String)> {
        match self {
            Self::Named(_) => None,
            Self::Known(known) => Some(known),
        }
        .into_iter()
        .flatten()
    }
}

/// Returns the path of a key in a table, as messages and the places of mistakes write it.
pub(super) fn below(table: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if is_bare { format!("{table}.{key}") } else { format!("{table}.\"{key}\"") }
}

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Truth(bool),
    /// A whole number.
    Whole(i64),
    /// A number with a point or exponent.
    Number(f64),
    /// A text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(truth) => truth.fmt(f),
            Self::Whole(number) => number.fmt(f),
            // The shortest text that reads back as the same number.
            Self::Number(number) => write!(f, "{number:?}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

// By hand, because serde's own way to read untagged enums forgets where a mistake is.
impl<'de> Deserialize<'de> for Contents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentsVisitor)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ContentsVisitor;

impl<'de> Visitor<'de> for ContentsVisitor {
    type Value = Contents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names, or a table of names with what is behind them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Contents, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = items.next_element()? {
            names.push(name);
        }
        Ok(Contents::Named(names))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Contents, A::Error> {
        let mut known = BTreeMap::new();
        while let Some((name, content)) = entries.next_entry()? {
            known.insert(name, content);
        }
        Ok(Contents::Known(known))
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, text or truth value")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Scalar, E> {
        Ok(Scalar::Truth(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Whole(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }
}
