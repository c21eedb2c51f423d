//! Fingerprints: the key under which the result of an instance is stored.
//!
//! The key is BLAKE3 in `derive_key` mode with the context `spdflow fingerprint v1`, over the canonical encoding of
//! the *preimage*: kind, version of the kind, parameters with defaults filled in, digests of the input artifacts by
//! slot, numeric target. Names of stages, paths, host, time, threads and resources are not in it. Inputs enter by
//! content, so a producer that makes the same bytes again stops the cascade.
//!
//! Parameters are encoded as `params.rs` says; the rest in the same way, with one more kind of value:
//!
//! * digest: `d`, 32 bytes
//!
//! The preimage is the list of, in this order: kind (text), version (whole number), params (table), inputs (table of
//! lists of digests), numeric target (text).
//!
//! The preimage is also kept as JSON in the record, so that a key can be recomputed and two keys compared field by
//! field. JSON tells `1` from `1.0` as the encoding does; an infinity, which JSON lacks, is `{"$float": "inf"}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spdflow_cache::{Digest, Record};

use crate::params::{NotANumber, Params, write_length, write_text};
use crate::value::{Data, Entry, Value};

const CONTEXT: &str = "spdflow fingerprint v1";

/// What a fingerprint is the hash of, borrowed from a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// The stage kind.
    pub kind: &'a str,
    /// The version of the kind.
    pub version: u32,
    /// The parameters, defaults filled in.
    pub params: &'a Params,
    /// The digests of the input artifacts by slot, lists in axis order.
    pub inputs: &'a BTreeMap<String, Vec<Digest>>,
    /// `cpu` or `cuda`.
    pub numeric_target: &'a str,
}

/// What a fingerprint is the hash of, as a record keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preimage {
    /// See [`Key::kind`].
    pub kind: String,
    /// See [`Key::version`].
    pub version: u32,
    /// See [`Key::params`].
    pub params: serde_json::Value,
    /// See [`Key::inputs`].
    pub inputs: BTreeMap<String, Vec<Digest>>,
    /// See [`Key::numeric_target`].
    pub numeric_target: String,
}

/// A recorded preimage that has no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// A parameter is not a number.
    #[error(transparent)]
    NotANumber(#[from] NotANumber),
    /// A recorded parameter is nothing a pipeline file can hold.
    #[error("recorded parameter `{path}` is not a value of a pipeline")]
    NotAValue {
        /// Which parameter.
        path: String,
    },
}

impl Key<'_> {
    /// Returns the fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let inputs = self.inputs.iter().map(|(slot, digests)| (slot.as_str(), digests.iter().copied()));
        fingerprint(self.kind, self.version, self.params, inputs, self.numeric_target)
    }

    /// Returns the preimage for the record.
    #[must_use]
    pub fn preimage(&self) -> Preimage {
        Preimage {
            kind: self.kind.to_owned(),
            version: self.version,
            params: to_json(&self.params.value()),
            inputs: self.inputs.clone(),
            numeric_target: self.numeric_target.to_owned(),
        }
    }
}

/// Returns the fingerprint of a preimage of which nothing was copied; fields as in [`Key`].
pub(crate) fn fingerprint<'a, D: ExactSizeIterator<Item = Digest>>(
    kind: &str,
    version: u32,
    params: &Params,
    inputs: impl ExactSizeIterator<Item = (&'a str, D)>,
    numeric_target: &str,
) -> Digest {
    let mut bytes = Vec::with_capacity(512);
    write_length(&mut bytes, b'a', 5);
    write_text(&mut bytes, kind);
    bytes.push(b'i');
    bytes.extend_from_slice(&i64::from(version).to_le_bytes());
    bytes.extend_from_slice(params.canonical());
    write_length(&mut bytes, b't', inputs.len());
    for (slot, digests) in inputs {
        write_text(&mut bytes, slot);
        write_length(&mut bytes, b'a', digests.len());
        for digest in digests {
            bytes.push(b'd');
            bytes.extend_from_slice(digest.as_bytes());
        }
    }
    write_text(&mut bytes, numeric_target);
    Digest::from_bytes(blake3::derive_key(CONTEXT, &bytes))
}

impl Preimage {
    /// Returns the fingerprint, computed anew.
    ///
    /// # Errors
    /// [`FingerprintError`] if the parameters were not written by [`Key::preimage`].
    pub fn fingerprint(&self) -> Result<Digest, FingerprintError> {
        let params = Params::of(&from_json(&self.params, &mut String::new())?)?;
        let key = Key {
            kind: &self.kind,
            version: self.version,
            params: &params,
            inputs: &self.inputs,
            numeric_target: &self.numeric_target,
        };
        Ok(key.fingerprint())
    }
}

/// Checks that a record's preimage has the record's fingerprint; the error says what is wrong.
///
/// # Errors
/// What the preimage is, if not that.
pub fn check_key(record: &Record) -> Result<(), String> {
    let preimage: Preimage = serde_json::from_value(record.preimage.clone())
        .map_err(|error| format!("its preimage cannot be read: {error}"))?;
    match preimage.fingerprint() {
        Ok(found) if found == record.fingerprint => Ok(()),
        Ok(found) => Err(format!("its preimage has the fingerprint {found}")),
        Err(error) => Err(format!("its preimage has no fingerprint: {error}")),
    }
}

/// Runs `inner` with `step` appended to the path of messages.
fn below<T>(path: &mut String, step: &str, inner: impl FnOnce(&mut String) -> T) -> T {
    let before = path.len();
    if !path.is_empty() && !step.starts_with('[') {
        path.push('.');
    }
    path.push_str(step);
    let result = inner(path);
    path.truncate(before);
    result
}

const FLOAT_KEY: &str = "$float";

/// Returns a pipeline value as JSON, keeping whole numbers and floats apart.
#[must_use]
pub fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match &value.data {
        Data::Bool(truth) => Json::Bool(*truth),
        Data::Integer(number) => Json::from(*number),
        Data::Float(number) => serde_json::Number::from_f64(*number)
            .map_or_else(|| serde_json::json!({ FLOAT_KEY: number.to_string() }), Json::Number),
        Data::String(string) => Json::String(string.clone()),
        Data::Array(items) => Json::Array(items.iter().map(to_json).collect()),
        Data::Table(entries) => {
            Json::Object(entries.iter().map(|(key, entry)| (key.clone(), to_json(&entry.value))).collect())
        }
    }
}

pub(crate) fn from_json(json: &serde_json::Value, path: &mut String) -> Result<Value, FingerprintError> {
    use serde_json::Value as Json;
    let refused = |path: &str| FingerprintError::NotAValue { path: path.to_owned() };
    let data = match json {
        Json::Null => return Err(refused(path)),
        Json::Bool(truth) => Data::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Data::Integer(whole),
            (None, Some(float)) if number.is_f64() => Data::Float(float),
            _ => return Err(refused(path)),
        },
        Json::String(string) => Data::String(string.clone()),
        Json::Array(items) => {
            let item = |(index, item)| below(path, &format!("[{index}]"), |path| from_json(item, path));
            Data::Array(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
        }
        Json::Object(entries) => match entries.get(FLOAT_KEY) {
            Some(written) if entries.len() == 1 => {
                let float = written.as_str().and_then(|written| written.parse().ok());
                Data::Float(float.ok_or_else(|| refused(path))?)
            }
            _ => {
                let mut table = BTreeMap::new();
                for (key, json) in entries {
                    let value = below(path, key, |path| from_json(json, path))?;
                    table.insert(key.clone(), Entry { key_origin: None, value });
                }
                Data::Table(table)
            }
        },
    };
    Ok(Value { data, origin: None })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(data: Data) -> Value {
        Value { data, origin: None }
    }

    fn table(entries: &[(&str, Data)]) -> Value {
        let entry = |data: &Data| Entry { key_origin: None, value: of(data.clone()) };
        of(Data::Table(entries.iter().map(|(key, data)| ((*key).to_owned(), entry(data))).collect()))
    }

    fn fingerprint(params: &Value) -> Digest {
        key(&Params::of(params).unwrap(), &BTreeMap::new()).fingerprint()
    }

    fn key<'a>(params: &'a Params, inputs: &'a BTreeMap<String, Vec<Digest>>) -> Key<'a> {
        Key { kind: "train.tms", version: 1, params, inputs, numeric_target: "cpu" }
    }

    #[test]
    fn the_fingerprint_of_a_fixed_preimage_never_changes() {
        let params = table(&[
            ("steps", Data::Integer(500)),
            ("lr", Data::Float(1e-3)),
            ("tied", Data::Bool(true)),
            ("schedule", Data::String("cosine".to_owned())),
            ("hidden", Data::Array(vec![of(Data::Integer(16))])),
        ]);
        let inputs = BTreeMap::from([("target".to_owned(), vec![Digest::of(b"a"), Digest::of(b"b")])]);
        // Computed from the module's description by an independent program (Python, with the `blake3` package).
        // If this fails, every cache in the world misses: change the context string and say so in the changelog.
        let expected = "62e491e0a022d79ce2d7561c0a74a82eb9b98ae20240084685619f758725dc20";
        assert_eq!(key(&Params::of(&params).unwrap(), &inputs).fingerprint().to_string(), expected);
    }

    #[test]
    fn kind_version_target_slot_and_input_order_move_the_fingerprint() {
        let params = Params::of(&table(&[("steps", Data::Integer(1))])).unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let inputs = BTreeMap::from([("x".to_owned(), vec![one, two])]);
        let base = key(&params, &inputs);
        let swapped = BTreeMap::from([("x".to_owned(), vec![two, one])]);
        let split = BTreeMap::from([("x".to_owned(), vec![one]), ("y".to_owned(), vec![two])]);
        let renamed = BTreeMap::from([("y".to_owned(), vec![one, two])]);
        let all = [
            base,
            Key { kind: "train.tm", ..base },
            Key { version: 2, ..base },
            Key { numeric_target: "cuda", ..base },
            Key { inputs: &swapped, ..base },
            Key { inputs: &split, ..base },
            Key { inputs: &renamed, ..base },
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().map(Key::fingerprint).collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn a_whole_number_and_a_float_of_the_same_value_differ() {
        let whole = table(&[("x", Data::Integer(1))]);
        let float = table(&[("x", Data::Float(1.0))]);
        assert_ne!(fingerprint(&whole), fingerprint(&float));
    }

    #[test]
    fn minus_zero_is_zero_and_nan_is_refused_with_its_place() {
        let at = |number| table(&[("losses", Data::Array(vec![table(&[("coeff", Data::Float(number))])]))]);
        assert_eq!(fingerprint(&at(-0.0)), fingerprint(&at(0.0)));
        let error = Params::of(&at(f64::NAN)).unwrap_err();
        assert_eq!(error, NotANumber { path: "losses[0].coeff".to_owned() });
    }

    #[test]
    fn moving_a_character_across_a_boundary_moves_the_fingerprint() {
        let list =
            |items: &[&str]| of(Data::Array(items.iter().map(|item| of(Data::String((*item).to_owned()))).collect()));
        assert_ne!(fingerprint(&list(&["ab", "c"])), fingerprint(&list(&["a", "bc"])));
        let pair = |key: &str, text: &str| table(&[(key, Data::String(text.to_owned()))]);
        assert_ne!(fingerprint(&pair("ab", "c")), fingerprint(&pair("a", "bc")));
    }

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Data::Bool),
            any::<i64>().prop_map(Data::Integer),
            any::<f64>().prop_filter("NaN is refused", |number| !number.is_nan()).prop_map(Data::Float),
            Just(Data::Float(f64::INFINITY)),
            "[a-c]{0,3}".prop_map(Data::String),
        ];
        leaf.prop_map(of).prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| of(Data::Array(items))),
                prop::collection::vec(("[a-c]{0,2}", inner), 0..4).prop_map(|entries| {
                    let entry = |value| Entry { key_origin: None, value };
                    of(Data::Table(entries.into_iter().map(|(key, value)| (key, entry(value))).collect()))
                }),
            ]
        })
    }

    /// Equality of the data, with floats by bits but one zero.
    pub(crate) fn same(left: &Value, right: &Value) -> bool {
        match (&left.data, &right.data) {
            (Data::Bool(left), Data::Bool(right)) => left == right,
            (Data::Integer(left), Data::Integer(right)) => left == right,
            (Data::Float(left), Data::Float(right)) => left == right,
            (Data::String(left), Data::String(right)) => left == right,
            (Data::Array(left), Data::Array(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
            }
            (Data::Table(left), Data::Table(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right)
                        .all(|((key, left), (other, right))| key == other && same(&left.value, &right.value))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn fingerprints_are_equal_exactly_when_parameters_are(left in any_value(), right in any_value()) {
            prop_assert_eq!(fingerprint(&left) == fingerprint(&right), same(&left, &right));
        }

        #[test]
        fn the_recorded_preimage_has_the_same_fingerprint(params in any_value(), seed: u8) {
            let inputs = BTreeMap::from([("x".to_owned(), vec![Digest::of(&[seed])])]);
            let params = Params::of(&params).unwrap();
            let key = key(&params, &inputs);
            let text = serde_json::to_string(&key.preimage()).unwrap();
            let recorded: Preimage = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(recorded.fingerprint(), Ok(key.fingerprint()));
        }

        #[test]
        fn the_order_in_which_keys_are_written_does_not_matter(
            mut entries in prop::collection::btree_map("[a-z]{1,3}", any::<i64>(), 0..6)
                .prop_map(|map| map.into_iter().collect::<Vec<_>>()),
        ) {
            let build = |entries: &[(String, i64)]| {
                let mut table = BTreeMap::new();
                for (key, number) in entries {
                    let value = of(Data::Integer(*number));
                    table.insert(key.clone(), Entry { key_origin: None, value });
                }
                fingerprint(&of(Data::Table(table)))
            };
            let before = build(&entries);
            entries.reverse();
            prop_assert_eq!(build(&entries), before);
        }
    }
}
