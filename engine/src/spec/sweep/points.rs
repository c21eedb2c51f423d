//! The points of a sweep: all combinations, or draws.

use std::collections::BTreeSet;

use super::{Choice, Home, SweptKey, written};
use crate::diagnostic::Diagnostic;
use crate::spec::{Mistakes, names};
use crate::value::{Data, Entry, Origin, Value};

/// How many points a sweep may have.
const MAX_POINTS: usize = 100_000;

/// Returns all combinations, the last key fastest; a point is called after its values.
pub(super) fn grid(
    keys: &[SweptKey],
    what: &str,
    entry: &Entry,
    mistakes: &mut Mistakes,
) -> Option<Vec<(String, Vec<Value>)>> {
    let mut points: Vec<Vec<Value>> = vec![Vec::new()];
    for key in keys {
        let Choice::Values(values) = &key.choice else {
            let message = format!("{what} is a grid, so `{}` needs a list of values", written(&key.steps));
            let hint = "or draw points at random: `samples = 20`";
            mistakes.push(Diagnostic::new(message).at(key.origin.as_ref()).hint(hint));
            return None;
        };
        if points.len().saturating_mul(values.len()) > MAX_POINTS {
            let message = format!("{what} has more than {MAX_POINTS} points");
            mistakes.push(Diagnostic::new(message).at(entry.place()).hint("draw some of them: `samples = 20`"));
            return None;
        }
        points = points
            .iter()
            .flat_map(|point| values.iter().map(move |value| point.iter().chain([value]).cloned().collect()))
            .collect();
    }
    let names = short_names(keys);
    let name = |point: &Vec<Value>| {
        let parts = names.iter().zip(point).map(|(name, value)| format!("{name}-{}", as_name(value)));
        parts.collect::<Vec<_>>().join("+")
    };
    let mut named: Vec<_> = points.iter().map(name).collect();
    // Values that differ in what a name cannot hold, or too many to read: numbers do.
    if named.iter().collect::<BTreeSet<_>>().len() < points.len() || named.iter().any(|name| name.len() > 120) {
        named = (0..points.len()).map(|number| number.to_string()).collect();
    }
    Some(named.into_iter().zip(points).collect())
}

/// Returns the shortest end of each key's path that no other key ends with.
pub(super) fn short_names(keys: &[SweptKey]) -> Vec<String> {
    let end = |key: &SweptKey, length: usize| {
        let skip = key.steps.len().saturating_sub(length);
        let end = written(&key.steps[skip..]);
        // Two stages may have the same parameter.
        match &key.home {
            Home::Stage(home) | Home::Shared(home) if length > key.steps.len() => format!("{home}.{end}"),
            _ => end,
        }
    };
    let is_unique =
        |key: &SweptKey, length: usize| keys.iter().filter(|other| end(other, length) == end(key, length)).count() == 1;
    let length = |key: &SweptKey| (1..=key.steps.len()).find(|length| is_unique(key, *length));
    keys.iter().map(|key| end(key, length(key).unwrap_or(key.steps.len() + 1))).collect()
}

fn as_name(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if names::is_name_char(c) || c == '+' { c } else { '_' }).collect()
}

/// Returns points drawn at random, called by their numbers. A draw depends on the seed, the point's number and the key
/// alone, so that more samples leave the first ones as they are.
pub(super) fn sampled(
    keys: &[SweptKey],
    samples: usize,
    seed: i64,
    what: &str,
    entry: &Entry,
    mistakes: &mut Mistakes,
) -> Option<Vec<(String, Vec<Value>)>> {
    if samples > MAX_POINTS {
        let message = format!("{what} has more than {MAX_POINTS} points");
        mistakes.push(Diagnostic::new(message).at(entry.place()));
        return None;
    }
    let point = |number: usize| {
        let values = keys.iter().map(|key| {
            let home = match &key.home {
                Home::Stage(name) => format!("stage.{name}.params"),
                Home::Shared(name) => format!("params.{name}"),
            };
            let draw = uniform(seed, number, &format!("{home}.{}", written(&key.steps)));
            key.choice.at(draw, key.origin.as_ref())
        });
        (number.to_string(), values.collect())
    };
    Some((0..samples).map(point).collect())
}

/// Returns a number in [0, 1) that depends on nothing but the arguments.
fn uniform(seed: i64, number: usize, key: &str) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("spdflow sweep v1");
    hasher.update(&seed.to_le_bytes()).update(&(number as u64).to_le_bytes()).update(key.as_bytes());
    let bytes: [u8; 8] = hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes");
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Choice {
    /// Returns the value that a draw in [0, 1) chooses.
    fn at(&self, draw: f64, origin: Option<&Origin>) -> Value {
        let data = match self {
            Self::Values(values) => return values[(draw * values.len() as f64) as usize].clone(),
            Self::Uniform(from, to) => Data::Float(from + draw * (to - from)),
            Self::LogUniform(from, to) => Data::Float((from.ln() + draw * (to.ln() - from.ln())).exp()),
            Self::Integers(from, to) => Data::Integer(from + (draw * to.wrapping_sub(*from) as f64) as i64),
        };
        Value { data, origin: origin.cloned() }
    }
}
