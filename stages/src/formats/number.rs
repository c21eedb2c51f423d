//! A number of a file in the file's own precision: what it is, how far another is from it, how it reads.
//!
//! Formats hand pairs of these to the [`Tally`](super::tally::Tally), so every format measures differences in one way.

use std::fmt;

use arrow::datatypes::{ArrowPrimitiveType, Float16Type};
use spdflow_engine::audit::format::{Largest, Tolerance};

/// A number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// The bits of an IEEE half.
    Half(u16),
    /// The bits of a bfloat16: the upper half of an f32.
    Brain(u16),
    Single(f32),
    Double(f64),
    Integer(i128),
}

impl Number {
    /// Returns whether both are of one precision and the same bits.
    pub(super) fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Half(left), Self::Half(right)) | (Self::Brain(left), Self::Brain(right)) => left == right,
            (Self::Single(left), Self::Single(right)) => left.to_bits() == right.to_bits(),
            (Self::Double(left), Self::Double(right)) => left.to_bits() == right.to_bits(),
            (Self::Integer(left), Self::Integer(right)) => left == right,
            _ => false,
        }
    }

    /// Returns whether `made`, of other bits than `self`, is near enough to it. Integers have to be the same.
    pub(super) fn admits(self, made: Self, tolerance: Tolerance) -> bool {
        let is_integer = matches!((self, made), (Self::Integer(_), Self::Integer(_)));
        !tolerance.is_exact() && !is_integer && tolerance.admits(self.to_f64(), made.to_f64())
    }

    /// Returns how far `made` is from `self`. A NaN is infinitely far from every number.
    pub(super) fn distance(self, made: Self) -> Largest {
        let (before, after) = (self.to_f64(), made.to_f64());
        if before == after && !matches!((self, made), (Self::Integer(_), Self::Integer(_)))
            || before.is_nan() && after.is_nan()
        {
            return Largest::default();
        }
        let absolute = match (self, made) {
            // Beyond 2^53 two integers may be the same f64.
            (Self::Integer(before), Self::Integer(after)) => before.abs_diff(after) as f64,
            _ => (after - before).abs(),
        };
        let or_infinite = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
        Largest {
            absolute: or_infinite(absolute),
            relative: or_infinite(absolute / before.abs()),
            ulps: self.ulps(made),
        }
    }

    /// Returns the number as an f64; integers are rounded.
    pub(super) fn to_f64(self) -> f64 {
        match self {
            Self::Half(bits) => <Float16Type as ArrowPrimitiveType>::Native::from_bits(bits).to_f64(),
            Self::Brain(bits) => f64::from(f32::from_bits(u32::from(bits) << 16)),
            Self::Single(value) => f64::from(value),
            Self::Double(value) => value,
            Self::Integer(value) => value as f64,
        }
    }

    /// Returns how many numbers of their precision lie between the two, counting the farther one.
    fn ulps(self, made: Self) -> u64 {
        if self.to_f64().is_nan() || made.to_f64().is_nan() {
            return u64::MAX;
        }
        let rank = |number: Self| match number {
            Self::Half(bits) | Self::Brain(bits) => rank(u64::from(bits), 16),
            Self::Single(value) => rank(u64::from(value.to_bits()), 32),
            Self::Double(value) => rank(value.to_bits(), 64),
            Self::Integer(value) => value,
        };
        let (before, after) = match (self, made) {
            // Of two precisions: an integer where a float was.
            (Self::Integer(_), Self::Integer(_)) => (rank(self), rank(made)),
            (Self::Integer(_), _) | (_, Self::Integer(_)) => {
                (rank(Self::Double(self.to_f64())), rank(Self::Double(made.to_f64())))
            }
            _ => (rank(self), rank(made)),
        };
        u64::try_from(before.abs_diff(after)).unwrap_or(u64::MAX)
    }
}

/// Returns the place of a float among all of its width: both zeros at 0, negative numbers below.
fn rank(bits: u64, width: u32) -> i128 {
    let sign = 1_u64 << (width - 1);
    let magnitude = i128::from(bits & (sign - 1));
    if bits & sign == 0 { magnitude } else { -magnitude }
}

impl fmt::Display for Number {
    /// The shortest text that reads back as the same number; a NaN with its bits, which say what kind of NaN it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Half(bits) | Self::Brain(bits) if self.to_f64().is_nan() => write!(f, "NaN ({bits:#06x})"),
            Self::Half(_) | Self::Brain(_) => write!(f, "{:?}", self.to_f64()),
            Self::Single(value) if value.is_nan() => write!(f, "NaN ({:#010x})", value.to_bits()),
            Self::Single(value) => write!(f, "{value:?}"),
            Self::Double(value) if value.is_nan() => write!(f, "NaN ({:#018x})", value.to_bits()),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::Integer(value) => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_ulp_apart_in_every_precision() {
        let next = f32::from_bits(1.0_f32.to_bits() + 1);
        let pairs = [
            (Number::Single(1.0), Number::Single(next)),
            (Number::Double(1.0), Number::Double(f64::from_bits(1.0_f64.to_bits() + 1))),
            (Number::Half(0x3c00), Number::Half(0x3c01)),
            (Number::Brain(0x3f80), Number::Brain(0x3f81)),
            (Number::Integer(-3), Number::Integer(-4)),
            // From zero to the first number below it.
            (Number::Single(0.0), Number::Single(-f32::from_bits(1))),
        ];
        for (left, right) in pairs {
            assert_eq!(left.distance(right).ulps, 1, "{left} and {right}");
            assert_eq!(right.distance(left).ulps, 1, "{right} and {left}");
        }
        let tiny = f32::from_bits(1);
        assert_eq!(Number::Single(tiny).distance(Number::Single(-tiny)).ulps, 2);
    }

    #[test]
    fn distances_of_zeros_infinities_and_nans_are_what_they_should_be() {
        let far = |left: f64, right: f64| Number::Double(left).distance(Number::Double(right));
        assert_eq!(far(2.0, 3.0).absolute, 1.0);
        assert_eq!(far(2.0, 3.0).relative, 0.5);
        assert_eq!(far(0.0, -0.0), Largest::default());
        assert_eq!(far(0.0, 1.0).relative, f64::INFINITY);
        assert_eq!(far(f64::INFINITY, 1.0).absolute, f64::INFINITY);
        assert_eq!(far(f64::INFINITY, 1.0).relative, f64::INFINITY);
        let whole = Largest { absolute: f64::INFINITY, relative: f64::INFINITY, ulps: u64::MAX };
        assert_eq!(far(f64::NAN, 1.0), whole);
        assert_eq!(far(1.0, f64::NAN), whole);
        assert_eq!(far(f64::NAN, -f64::NAN), Largest::default());
        // 2^62 and its successor are the same f64.
        let large = 1_i128 << 62;
        assert_eq!(Number::Integer(large).distance(Number::Integer(large + 1)).absolute, 1.0);
        // As doubles: an integer where a float was.
        assert_eq!(Number::Double(1.0).distance(Number::Integer(2)).ulps, 1 << 52);
    }

    #[test]
    fn a_tolerance_is_for_floats_only_and_none_admits_nothing() {
        let near = Tolerance { absolute: 1.0, relative: 0.0 };
        assert!(Number::Single(1.0).admits(Number::Single(1.5), near));
        assert!(!Number::Integer(1).admits(Number::Integer(2), near));
        assert!(!Number::Single(0.0).admits(Number::Single(-0.0), Tolerance::EXACT));
        let (quiet, other) = (Number::Single(f32::NAN), Number::Single(f32::from_bits(0x7fc0_0001)));
        assert!(!quiet.is_same(other) && !quiet.admits(other, Tolerance::EXACT) && quiet.admits(other, near));
    }

    #[test]
    fn numbers_read_as_short_as_they_can_and_a_nan_with_its_bits() {
        let cases = [
            (Number::Single(0.1), "0.1"),
            (Number::Double(-0.0), "-0.0"),
            (Number::Half(0x3c01), "1.0009765625"),
            (Number::Brain(0x3f81), "1.0078125"),
            (Number::Half(0x7e00), "NaN (0x7e00)"),
            (Number::Single(f32::from_bits(0x7fc0_0001)), "NaN (0x7fc00001)"),
            (Number::Double(f64::from_bits(0x7ff8_0000_0000_0000)), "NaN (0x7ff8000000000000)"),
            (Number::Integer(-7), "-7"),
        ];
        for (number, text) in cases {
            assert_eq!(number.to_string(), text);
        }
    }
}
