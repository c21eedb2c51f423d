//! Tables in Parquet files, so that pandas, polars and DuckDB open them.
//!
//! Bytes depend only on the columns: the writer's name is pinned, and the format stores neither time nor host. Values
//! are compressed with Snappy. The tables with a fixed form are [`MetricLog`](super::metric_log::MetricLog) and [`CiTable`](super::ci_table::CiTable).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use spdflow_engine::kind::StageError;

/// One column of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Steps and counts.
    Int64(Vec<i64>),
    /// Indices.
    Int32(Vec<i32>),
    /// Indices that may be missing.
    OptionalInt32(Vec<Option<i32>>),
    /// Tensor entries.
    Float32(Vec<f32>),
    /// Metrics.
    Float64(Vec<f64>),
    /// Names.
    Text(Vec<String>),
    /// Yes or no.
    Bool(Vec<bool>),
}

impl Column {
    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Int64(values) => values.len(),
            Self::Int32(values) => values.len(),
            Self::OptionalInt32(values) => values.len(),
            Self::Float32(values) => values.len(),
            Self::Float64(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Bool(values) => values.len(),
        }
    }

    /// Returns whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn to_array(&self) -> ArrayRef {
        match self {
            Self::Int64(values) => Arc::new(Int64Array::from(values.clone())),
            Self::Int32(values) => Arc::new(Int32Array::from(values.clone())),
            Self::OptionalInt32(values) => Arc::new(Int32Array::from(values.clone())),
            Self::Float32(values) => Arc::new(Float32Array::from(values.clone())),
            Self::Float64(values) => Arc::new(Float64Array::from(values.clone())),
            Self::Text(values) => Arc::new(StringArray::from_iter_values(values)),
            Self::Bool(values) => Arc::new(BooleanArray::from(values.clone())),
        }
    }

    fn is_optional(&self) -> bool {
        matches!(self, Self::OptionalInt32(_))
    }
}

/// Writes a table to `path`.
///
/// # Errors
/// [`StageError::Io`] if the file cannot be written.
///
/// # Panics
/// If the columns differ in length: our own mistake.
pub fn write(path: &Path, columns: &[(&str, Column)]) -> Result<(), StageError> {
    fs::write(path, to_bytes(columns)?).map_err(StageError::io("write", path))
}

/// Returns the bytes of a Parquet file with these columns.
///
/// # Errors
/// [`StageError::Failed`] if the table cannot be encoded.
///
/// # Panics
/// If the columns differ in length: our own mistake.
pub fn to_bytes(columns: &[(&str, Column)]) -> Result<Vec<u8>, StageError> {
    let rows = columns.first().map_or(0, |(_, column)| column.len());
    for (name, column) in columns {
        assert_eq!(column.len(), rows, "column `{name}` has another length than the first");
    }
    let arrays: Vec<ArrayRef> = columns.iter().map(|(_, column)| column.to_array()).collect();
    let fields: Vec<Field> = columns
        .iter()
        .zip(&arrays)
        .map(|((name, column), array)| Field::new(*name, array.data_type().clone(), column.is_optional()))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let properties =
        WriterProperties::builder().set_created_by("spdflow".to_owned()).set_compression(Compression::SNAPPY).build();
    let encode = || -> Result<Vec<u8>, parquet::errors::ParquetError> {
        let batch = RecordBatch::try_new(schema.clone(), arrays)?;
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(bytes)
    };
    encode().map_err(|error| StageError::failed(format!("table cannot be encoded: {error}")))
}

/// A table that was read.
#[derive(Debug, Clone)]
pub struct Table {
    /// Named in messages.
    path: PathBuf,
    rows: usize,
    columns: Vec<(String, Column)>,
}

/// Returns the table in the Parquet file at `path`.
///
/// # Errors
/// [`StageError::Io`] if the file cannot be read; [`StageError::Failed`] if it is damaged or has a type of column that
/// we never write.
pub fn read(path: &Path) -> Result<Table, StageError> {
    let file = File::open(path).map_err(StageError::io("read", path))?;
    let damaged = |error: &dyn std::fmt::Display| {
        StageError::failed_with_hint(
            format!("`{}` is not a readable Parquet file: {error}", path.display()),
            "the file is damaged or was cut off; `spdflow cache verify` checks the whole cache",
        )
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(&error))?;
    let schema = builder.schema().clone();
    let reader = builder.build().map_err(|error| damaged(&error))?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(|error| damaged(&error))?;
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let parts: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(i)).collect();
            let column = from_arrays(field, &parts).ok_or_else(|| {
                StageError::failed(format!(
                    "column `{}` of `{}` has type {}, which no table of ours has",
                    field.name(),
                    path.display(),
                    field.data_type()
                ))
            })?;
            Ok((field.name().clone(), column))
        })
        .collect::<Result<_, StageError>>()?;
    Ok(Table { path: path.to_path_buf(), rows, columns })
}

fn from_arrays(field: &Field, parts: &[&ArrayRef]) -> Option<Column> {
    Some(match field.data_type() {
        DataType::Int64 => {
            Column::Int64(parts.iter().flat_map(|part| part.as_primitive::<Int64Type>().values()).copied().collect())
        }
        DataType::Int32 if field.is_nullable() => {
            Column::OptionalInt32(parts.iter().flat_map(|part| part.as_primitive::<Int32Type>().iter()).collect())
        }
        DataType::Int32 => {
            Column::Int32(parts.iter().flat_map(|part| part.as_primitive::<Int32Type>().values()).copied().collect())
        }
        DataType::Float32 => Column::Float32(
            parts.iter().flat_map(|part| part.as_primitive::<Float32Type>().values()).copied().collect(),
        ),
        DataType::Float64 => Column::Float64(
            parts.iter().flat_map(|part| part.as_primitive::<Float64Type>().values()).copied().collect(),
        ),
        DataType::Utf8 => Column::Text(
            parts
                .iter()
                .flat_map(|part| part.as_string::<i32>().iter())
                .map(|text| text.unwrap_or_default().to_owned())
                .collect(),
        ),
        DataType::Boolean => Column::Bool(
            parts.iter().flat_map(|part| part.as_boolean().iter()).map(Option::unwrap_or_default).collect(),
        ),
        _ => return None,
    })
}

macro_rules! typed_column {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`StageError::Failed`] if there is no such column or it has another type.
        pub fn $name(&self, name: &str) -> Result<&[$type], StageError> {
            match self.column(name)? {
                Column::$variant(values) => Ok(values),
                _ => Err(StageError::failed(format!(
                    "column `{name}` of `{}` does not hold {}",
                    self.path.display(),
                    stringify!($type)
                ))),
            }
        }
    };
}

impl Table {
    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the names of the columns in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    fn column(&self, name: &str) -> Result<&Column, StageError> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, column)| column).ok_or_else(|| {
            let have = self.names().collect::<Vec<_>>().join("`, `");
            StageError::failed(format!("`{}` has no column `{name}`; it holds `{have}`", self.path.display()))
        })
    }

    typed_column!(/// Returns a column of 64-bit integers.
        int64, Int64, i64);
    typed_column!(/// Returns a column of 32-bit integers.
        int32, Int32, i32);
    typed_column!(/// Returns a column of 32-bit integers that may be missing.
        optional_int32, OptionalInt32, Option<i32>);
    typed_column!(/// Returns a column of 32-bit floats.
        float32, Float32, f32);
    typed_column!(/// Returns a column of 64-bit floats.
        float64, Float64, f64);
    typed_column!(/// Returns a column of texts.
        text, Text, String);
    typed_column!(/// Returns a column of yes or no.
        bool, Bool, bool);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Column, read, to_bytes, write};

    fn sample() -> Vec<(&'static str, Column)> {
        vec![
            ("step", Column::Int64(vec![0, 10, i64::MAX])),
            ("input", Column::Int32(vec![0, -1, 2])),
            ("cluster", Column::OptionalInt32(vec![None, Some(3), None])),
            ("lower", Column::Float32(vec![0.1, f32::NAN, -0.0])),
            ("value", Column::Float64(vec![0.1, f64::INFINITY, 1e-300])),
            ("name", Column::Text(vec!["a".into(), String::new(), "ü".into()])),
            ("alive", Column::Bool(vec![true, false, true])),
        ]
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        write(&path, &sample()).unwrap();
        let table = read(&path).unwrap();
        assert_eq!(table.rows(), 3);
        assert_eq!(table.int64("step").unwrap(), [0, 10, i64::MAX]);
        assert_eq!(table.int32("input").unwrap(), [0, -1, 2]);
        assert_eq!(table.optional_int32("cluster").unwrap(), [None, Some(3), None]);
        assert!(table.float32("lower").unwrap()[1].is_nan());
        assert_eq!(table.float64("value").unwrap(), [0.1, f64::INFINITY, 1e-300]);
        assert_eq!(table.text("name").unwrap(), ["a", "", "ü"]);
        assert_eq!(table.bool("alive").unwrap(), [true, false, true]);
    }

    #[test]
    fn equal_columns_give_equal_bytes_that_name_no_library_version() {
        let bytes = to_bytes(&sample()).unwrap();
        assert_eq!(bytes, to_bytes(&sample()).unwrap());
        assert!(!String::from_utf8_lossy(&bytes).contains("parquet-rs"));
    }

    #[test]
    fn a_table_without_rows_keeps_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        write(&path, &[("step", Column::Int64(vec![]))]).unwrap();
        assert!(read(&path).unwrap().int64("step").unwrap().is_empty());
    }

    #[test]
    fn damaged_files_and_missing_columns_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let bytes = to_bytes(&sample()).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("`{}` is not a readable Parquet file", path.display())), "{message}");
        fs::write(&path, &bytes).unwrap();
        let shown = path.display();
        let table = read(&path).unwrap();
        assert_eq!(
            table.text("loss").unwrap_err().to_string(),
            format!(
                "`{shown}` has no column `loss`; it holds `step`, `input`, `cluster`, `lower`, `value`, `name`, `alive`"
            )
        );
        let message = table.text("step").unwrap_err().to_string();
        assert_eq!(message, format!("column `step` of `{shown}` does not hold String"));
    }
}
