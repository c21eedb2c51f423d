//! The parameters of an instance as canonical bytes: what fingerprints are taken of, and small.
//!
//! Every value is a tag byte and its content, every content of variable length is preceded by its length, so no two
//! different values have the same bytes:
//!
//! * text: `s`, number of bytes (u64), the bytes (UTF-8)
//! * truth value: `b`, one byte 0 or 1
//! * whole number: `i`, i64
//! * float: `f`, the bits as u64, after -0.0 was replaced by 0.0; NaN is refused
//! * list: `a`, number of items (u64), the items in order
//! * table: `t`, number of entries (u64), each key (as text) and value, in the byte order of keys
//!
//! All numbers are little-endian. A tree of a thousand stages' parameters takes some ten times the memory of these
//! bytes, and most are needed only for their hash: the tree is made where a stage runs or a difference is shown.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::value::{Data, Entry, Value};

/// Parameters in canonical bytes.
#[derive(Clone)]
pub struct Params {
    /// Perhaps those of many instances: what was read from a file, without a copy.
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

/// A parameter that is not a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter `{path}` is NaN, which never equals itself and so cannot be part of a key")]
pub struct NotANumber {
    /// Which parameter.
    pub path: String,
}

impl Params {
    /// Returns the canonical bytes of a value.
    ///
    /// # Errors
    /// [`NotANumber`] if a number is NaN.
    pub fn of(value: &Value) -> Result<Self, NotANumber> {
        let mut bytes = Vec::with_capacity(512);
        write_value(&mut bytes, value, &mut String::new())?;
        let range = 0..bytes.len();
        Ok(Self { bytes: Arc::new(bytes), range })
    }

    /// Returns the parameters whose bytes are part of `bytes`; `None` if they are not those of a value.
    pub(crate) fn within(bytes: &Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        let params = Self { bytes: bytes.clone(), range };
        let mut rest = params.bytes.get(params.range.clone())?;
        skip_value(&mut rest)?;
        rest.is_empty().then_some(params)
    }

    /// Returns the bytes.
    #[must_use]
    pub fn canonical(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    /// Returns the value.
    ///
    /// # Panics
    /// If the bytes are not those of a value, which is checked when they come from anywhere but [`Params::of`].
    #[must_use]
    pub fn value(&self) -> Value {
        read_value(&mut self.canonical()).expect("canonical bytes are those of a value")
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Params({})", self.value())
    }
}

impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

/// Writes a tag and a length.
pub(crate) fn write_length(bytes: &mut Vec<u8>, tag: u8, length: usize) {
    bytes.push(tag);
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
}

/// Writes a text.
pub(crate) fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_length(bytes, b's', text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn write_value(bytes: &mut Vec<u8>, value: &Value, path: &mut String) -> Result<(), NotANumber> {
    match &value.data {
        Data::Bool(truth) => bytes.extend_from_slice(&[b'b', u8::from(*truth)]),
        Data::Integer(number) => {
            bytes.push(b'i');
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Data::Float(number) if number.is_nan() => return Err(NotANumber { path: path.clone() }),
        Data::Float(number) => {
            bytes.push(b'f');
            // Adding zero turns -0.0 into 0.0 and leaves every other number as it is.
            bytes.extend_from_slice(&(number + 0.0).to_bits().to_le_bytes());
        }
        Data::String(string) => write_text(bytes, string),
        Data::Array(items) => {
            write_length(bytes, b'a', items.len());
            for (index, item) in items.iter().enumerate() {
                below(path, |path| path.push_str(&format!("[{index}]")), |path| write_value(bytes, item, path))?;
            }
        }
        Data::Table(entries) => {
            write_length(bytes, b't', entries.len());
            for (key, entry) in entries {
                write_text(bytes, key);
                let step = |path: &mut String| {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                };
                below(path, step, |path| write_value(bytes, &entry.value, path))?;
            }
        }
    }
    Ok(())
}

/// Runs `inner` with the path of messages one step longer.
fn below<T>(path: &mut String, step: impl FnOnce(&mut String), inner: impl FnOnce(&mut String) -> T) -> T {
    let before = path.len();
    step(path);
    let result = inner(path);
    path.truncate(before);
    result
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*chunk)
}

fn read_length(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(chunk(rest)?)).ok()
}

/// Reads a text after its tag.
fn read_text<'b>(rest: &mut &'b [u8]) -> Option<&'b str> {
    let length = read_length(rest)?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

fn read_key<'b>(rest: &mut &'b [u8]) -> Option<&'b str> {
    if chunk(rest)? == *b"s" { read_text(rest) } else { None }
}

fn read_value(rest: &mut &[u8]) -> Option<Value> {
    let [tag] = chunk(rest)?;
    let data = match tag {
        b'b' => Data::Bool(chunk(rest)? != [0]),
        b'i' => Data::Integer(i64::from_le_bytes(chunk(rest)?)),
        b'f' => Data::Float(f64::from_bits(u64::from_le_bytes(chunk(rest)?))),
        b's' => Data::String(read_text(rest)?.to_owned()),
        b'a' => Data::Array((0..read_length(rest)?).map(|_| read_value(rest)).collect::<Option<_>>()?),
        b't' => {
            let entry = |rest: &mut &[u8]| Some((read_key(rest)?.to_owned(), Entry::new(read_value(rest)?)));
            let entries = (0..read_length(rest)?).map(|_| entry(rest)).collect::<Option<BTreeMap<_, _>>>()?;
            Data::Table(entries)
        }
        _ => return None,
    };
    Some(Value::new(data))
}

/// Goes past a value, `None` if there is none.
fn skip_value(rest: &mut &[u8]) -> Option<()> {
    let [tag] = chunk(rest)?;
    match tag {
        b'b' => chunk::<1>(rest).map(|_| ()),
        b'i' | b'f' => chunk::<8>(rest).map(|_| ()),
        b's' => read_text(rest).map(|_| ()),
        b'a' => (0..read_length(rest)?).try_for_each(|_| skip_value(rest)),
        b't' => (0..read_length(rest)?).try_for_each(|_| {
            read_key(rest)?;
            skip_value(rest)
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fingerprint::tests::{any_value, same};

    proptest! {
        #[test]
        fn canonical_bytes_give_the_value_back(value in any_value()) {
            let params = Params::of(&value).unwrap();
            prop_assert!(same(&params.value(), &value));
            let (bytes, range) = (params.bytes.clone(), params.range.clone());
            prop_assert!(Params::within(&bytes, range.clone()).is_some());
            prop_assert!(Params::within(&bytes, 0..range.end - 1).is_none());
            prop_assert!(Params::within(&bytes, 0..range.end + 1).is_none());
        }
    }
}
