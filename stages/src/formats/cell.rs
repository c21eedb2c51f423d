//! A value of a table, whatever its type.
//!
//! Columns that are equal are never taken apart, so a value may be as costly as it is convenient.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;
use spdflow_engine::audit::format::{Largest, Tolerance};

use super::excerpt::{beginning, excerpts};
use super::number::Number;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Null,
    Number(Number),
    Bool(bool),
    Text(String),
    List(Vec<Cell>),
    Struct(Vec<(String, Cell)>),
    /// Of a type that is only compared: the value as a column of one row, and how it reads.
    Other(ArrayRef, String),
}

/// How two values differ.
#[derive(Debug)]
pub(super) struct CellDifference {
    pub(super) is_within: bool,
    /// Where in the value: `[2]`, `.width`; empty for the value itself.
    pub(super) below: String,
    pub(super) recorded: String,
    pub(super) made: String,
    pub(super) largest: Option<Largest>,
}

impl Cell {
    /// Returns the value in a row of a column.
    pub(super) fn of(column: &dyn Array, row: usize) -> Self {
        if column.is_null(row) {
            return Self::Null;
        }
        macro_rules! integer {
            ($type:ty) => {
                Self::Number(Number::Integer(i128::from(column.as_primitive::<$type>().value(row))))
            };
        }
        let list = |values: ArrayRef| Self::List((0..values.len()).map(|i| Self::of(&values, i)).collect());
        match column.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool(column.as_boolean().value(row)),
            DataType::Int8 => integer!(Int8Type),
            DataType::Int16 => integer!(Int16Type),
            DataType::Int32 => integer!(Int32Type),
            DataType::Int64 => integer!(Int64Type),
            DataType::UInt8 => integer!(UInt8Type),
            DataType::UInt16 => integer!(UInt16Type),
            DataType::UInt32 => integer!(UInt32Type),
            DataType::UInt64 => integer!(UInt64Type),
            DataType::Float16 => Self::Number(Number::Half(column.as_primitive::<Float16Type>().value(row).to_bits())),
            DataType::Float32 => Self::Number(Number::Single(column.as_primitive::<Float32Type>().value(row))),
            DataType::Float64 => Self::Number(Number::Double(column.as_primitive::<Float64Type>().value(row))),
            DataType::Utf8 => Self::Text(column.as_string::<i32>().value(row).to_owned()),
            DataType::LargeUtf8 => Self::Text(column.as_string::<i64>().value(row).to_owned()),
            DataType::Utf8View => Self::Text(column.as_string_view().value(row).to_owned()),
            DataType::List(_) => list(column.as_list::<i32>().value(row)),
            DataType::LargeList(_) => list(column.as_list::<i64>().value(row)),
            DataType::FixedSizeList(..) => list(column.as_fixed_size_list().value(row)),
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(column.as_struct().columns());
                Self::Struct(columns.map(|(field, column)| (field.name().clone(), Self::of(column, row))).collect())
            }
            _ => {
                let shown = array_value_to_string(column, row);
                Self::Other(column.slice(row, 1), shown.unwrap_or_else(|error| format!("a value ({error})")))
            }
        }
    }

    /// Returns the value as a whole number.
    pub(super) fn integer(&self) -> Option<i128> {
        match self {
            Self::Number(Number::Integer(value)) => Some(*value),
            _ => None,
        }
    }

    /// Returns how `made` differs from this value of the same type; `None` if it does not.
    pub(super) fn compare(&self, made: &Self, tolerance: Tolerance) -> Option<CellDifference> {
        let differ = |(recorded, made)| {
            Some(CellDifference { is_within: false, below: String::new(), recorded, made, largest: None })
        };
        match (self, made) {
            (Self::Null, Self::Null) => None,
            (Self::Number(before), Self::Number(after)) if before.is_same(*after) => None,
            (Self::Number(before), Self::Number(after)) => Some(CellDifference {
                is_within: before.admits(*after, tolerance),
                largest: Some(before.distance(*after)),
                ..differ((before.to_string(), after.to_string()))?
            }),
            (Self::Bool(before), Self::Bool(after)) if before == after => None,
            (Self::Text(before), Self::Text(after)) => (before != after)
                .then(|| excerpts(before, after))
                .and_then(|found| differ((found.recorded, found.made))),
            (Self::List(before), Self::List(after)) if before.len() == after.len() => {
                let pairs = before.iter().zip(after).enumerate();
                first(pairs.filter_map(|(i, (before, after))| {
                    let found = before.compare(after, tolerance)?;
                    Some(CellDifference { below: format!("[{i}]{}", found.below), ..found })
                }))
            }
            (Self::Struct(before), Self::Struct(after)) => {
                first(before.iter().zip(after).filter_map(|((name, before), (_, after))| {
                    let found = before.compare(after, tolerance)?;
                    Some(CellDifference { below: format!(".{name}{}", found.below), ..found })
                }))
            }
            (Self::Other(before, _), Self::Other(after, _)) if before == after => None,
            _ => differ((self.shown(), made.shown())),
        }
    }

    /// Returns the value as text.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Text(text) => beginning(text),
            Self::List(values) => format!("a list of {}", values.len()),
            Self::Struct(_) => "a struct".to_owned(),
            Self::Other(_, text) => text.clone(),
        }
    }
}

/// Returns the first of the differences below a value that is outside the tolerance, or the first at all; with the
/// largest distances of all of them.
fn first(differences: impl Iterator<Item = CellDifference>) -> Option<CellDifference> {
    differences.reduce(|first, next| {
        let largest = match (first.largest, next.largest) {
            (Some(left), Some(right)) => Some(Largest {
                absolute: left.absolute.max(right.absolute),
                relative: left.relative.max(right.relative),
                ulps: left.ulps.max(right.ulps),
            }),
            (left, right) => left.or(right),
        };
        let named = if first.is_within && !next.is_within { next } else { first };
        CellDifference { largest, ..named }
    })
}
