//! What an audit has to know of file formats: where two files that should be equal differ, and which numbers a file quotes.
//!
//! The engine knows no tensor. Whoever does implements [`Format`] and hands the audit a table of them, [`Formats`]; a file of
//! a format that is not in the table is compared byte by byte.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Knows files of a format.
pub trait Format: Send + Sync {
    /// Compares the file that was recorded with one that was made anew; `None` if they hold the same.
    ///
    /// Two files that hold the same may be of different bytes: an image whose pixels agree. The audit says so.
    ///
    /// # Errors
    /// Which of the files cannot be read as this format, and why.
    fn compare(&self, recorded: &Path, made: &Path, tolerance: Tolerance) -> Result<Option<Difference>, Unreadable>;

    /// Returns the named numbers that the file shows, for a comparison with the recorded metrics.
    ///
    /// # Errors
    /// Why the file cannot be read as this format.
    fn quotes(&self, file: &Path) -> Result<Vec<Quote>, Unreadable> {
        let _ = file;
        Ok(Vec::new())
    }
}

/// How far a number may be from the recorded one: `|made - recorded| <= absolute + relative * |recorded|`.
///
/// Zero, the default, asks for the same bits: then `0.0` and `-0.0` differ, and a NaN equals a NaN of the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    /// In units of the number.
    pub absolute: f64,
    /// In parts of the recorded number.
    pub relative: f64,
}

impl Tolerance {
    /// The same bits.
    pub const EXACT: Self = Self { absolute: 0.0, relative: 0.0 };

    /// Returns whether nothing may differ.
    #[must_use]
    pub fn is_exact(self) -> bool {
        self == Self::EXACT
    }

    /// Returns whether `made` is near enough to `recorded`. A NaN is near to nothing but a NaN.
    #[must_use]
    pub fn admits(self, recorded: f64, made: f64) -> bool {
        if self.is_exact() {
            return recorded.to_bits() == made.to_bits();
        }
        recorded == made
            || (recorded.is_nan() && made.is_nan())
            || recorded.is_finite() && (made - recorded).abs() <= self.absolute + self.relative * recorded.abs()
    }
}

/// How two files of a format differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Whether every number is within the tolerance and nothing else differs.
    pub is_within: bool,
    /// The first place that differs (outside the tolerance, if any is): "tensor `linear1.weight` at [3, 1]".
    pub place: String,
    /// What stood there, as text.
    pub recorded: String,
    /// What stands there now.
    pub made: String,
    /// The training step that the place belongs to, where the file says so.
    pub step: Option<u64>,
    /// How many values differ, of how many: numbers, pixels, bytes.
    pub count: u64,
    /// See `count`.
    pub total: u64,
    /// How large the largest differences are, where the values are numbers.
    pub largest: Option<Largest>,
    /// Which parts of the file differ: tensors, columns; at most eight.
    pub parts: Vec<String>,
}

/// The largest differences of two sets of numbers, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Largest {
    /// Of `|made - recorded|`.
    pub absolute: f64,
    /// Of `|made - recorded| / |recorded|`; infinite where a zero became something else.
    pub relative: f64,
    /// Of the number of representable numbers between the two, in the file's own precision.
    pub ulps: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, recorded, made, count, total, .. } = self;
        write!(f, "{place}")?;
        if let Some(step) = self.step {
            write!(f, ", step {step}")?;
        }
        write!(f, ": {recorded}, now {made}; {count} of {total} differ")?;
        if let Some(Largest { absolute, relative, ulps }) = self.largest {
            write!(f, ", by at most {absolute:.3e} ({relative:.3e} of the value, {ulps} ULP)")?;
        }
        if self.parts.len() > 1 {
            write!(f, "; in {}", self.parts.join(", "))?;
        }
        Ok(())
    }
}

/// A number that a file shows under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Quote {
    /// Its name as that of a metric: `mmcs`, `train/loss/total`.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Half a unit of the last digit shown; 0 for a number in full precision.
    pub precision: f64,
    /// Where it stands, for messages: "row 17", "text `L0 = 1.02`".
    pub place: String,
}

/// A file that is not of its format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", if *.is_recorded { "the recorded file" } else { "the file made anew" })]
pub struct Unreadable {
    /// Whether it is the recorded one.
    pub is_recorded: bool,
    /// What is wrong with it.
    pub reason: String,
}

/// The formats that an audit knows, by the names that outputs declare: `safetensors`, `parquet`, ….
#[derive(Clone, Default)]
pub struct Formats {
    formats: BTreeMap<&'static str, Arc<dyn Format>>,
}

impl Formats {
    /// Adds a format under a name.
    #[must_use]
    pub fn with(mut self, name: &'static str, format: impl Format + 'static) -> Self {
        self.formats.insert(name, Arc::new(format));
        self
    }

    /// Returns the format that an output declares; bytes, if nothing more is known of it.
    #[must_use]
    pub fn get(&self, name: &str) -> Arc<dyn Format> {
        self.formats.get(name).cloned().unwrap_or_else(|| Arc::new(Bytes))
    }
}

/// Files of which nothing is known.
#[derive(Debug, Clone, Copy)]
pub struct Bytes;

impl Format for Bytes {
    fn compare(&self, recorded: &Path, made: &Path, _: Tolerance) -> Result<Option<Difference>, Unreadable> {
        let open = |path: &Path, is_recorded| {
            let unreadable = |error: io::Error| Unreadable { is_recorded, reason: error.to_string() };
            let file = File::open(path).map_err(unreadable)?;
            let length = file.metadata().map_err(unreadable)?.len();
            Ok((BufReader::new(file).bytes(), length))
        };
        let ((mut recorded, before), (mut made, after)) = (open(recorded, true)?, open(made, false)?);
        let (mut first, mut count) = (None, 0);
        let shown = |byte: Option<u8>| byte.map_or("the end".to_owned(), |byte| format!("{byte:#04x}"));
        for place in 0..before.max(after) {
            let next = |bytes: &mut io::Bytes<_>, is_recorded| {
                let byte = bytes.next().transpose();
                byte.map_err(|error| Unreadable { is_recorded, reason: error.to_string() })
            };
            let (left, right) = (next(&mut recorded, true)?, next(&mut made, false)?);
            if left != right {
                count += 1;
                first.get_or_insert((place, shown(left), shown(right)));
            }
        }
        Ok(first.map(|(place, recorded, made)| Difference {
            is_within: false,
            place: format!("byte {place}"),
            recorded,
            made,
            step: None,
            count,
            total: before.max(after),
            largest: None,
            parts: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(recorded: &[u8], made: &[u8]) -> Option<Difference> {
        let dir = tempfile::tempdir().unwrap();
        let [left, right] = ["left", "right"].map(|name| dir.path().join(name));
        std::fs::write(&left, recorded).unwrap();
        std::fs::write(&right, made).unwrap();
        Formats::default().get("unheard-of").compare(&left, &right, Tolerance::EXACT).unwrap()
    }

    #[test]
    fn bytes_differ_at_the_first_that_does_or_at_the_end() {
        assert_eq!(compared(b"abc", b"abc"), None);
        assert_eq!(compared(b"abcd", b"axcy").unwrap().to_string(), "byte 1: 0x62, now 0x78; 2 of 4 differ");
        assert_eq!(compared(b"ab", b"abc").unwrap().to_string(), "byte 2: the end, now 0x63; 1 of 3 differ");
    }

    #[test]
    fn a_tolerance_of_nothing_asks_for_bits_and_a_nan_is_near_to_a_nan_alone() {
        let near = Tolerance { absolute: 0.5, relative: 0.1 };
        assert!(near.admits(10.0, 11.5) && !near.admits(10.0, 11.51));
        assert!(near.admits(f64::NAN, f64::NAN) && !near.admits(f64::NAN, 1.0) && !near.admits(1.0, f64::NAN));
        assert!(near.admits(f64::INFINITY, f64::INFINITY) && !near.admits(1.0, f64::INFINITY));
        assert!(!near.admits(f64::INFINITY, 1.0) && !near.admits(f64::INFINITY, f64::NEG_INFINITY));
        assert!(Tolerance::EXACT.admits(0.0, 0.0) && !Tolerance::EXACT.admits(0.0, -0.0));
        assert!(Tolerance::EXACT.admits(f64::NAN, f64::NAN));
    }
}
