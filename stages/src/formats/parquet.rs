//! Parquet tables, column by column.
//!
//! Both files are read once, some rows at a time. A table with a column `step` is read as a log: the difference of the
//! smallest step is the first, wherever its row stands.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use spdflow_engine::audit::format::{Difference, Format, Quote, Tolerance, Unreadable};

use super::cell::Cell;
use super::guard::guarded;
use super::metadata::compare_metadata;
use super::reading::unreadable;
use super::tally::{Site, Tally};

/// Where a table says which training step a row belongs to.
const STEP: &str = "step";

/// At most as many texts of a row are shown beside its number.
const MOST_TEXTS: usize = 3;

/// Tables. A tolerance is for floats; all else has to be equal.
#[derive(Debug, Clone, Copy)]
pub struct Parquet;

impl Format for Parquet {
    fn compare(&self, recorded: &Path, made: &Path, tolerance: Tolerance) -> Result<Option<Difference>, Unreadable> {
        let (mut recorded, mut made) = (Rows::open(recorded, true)?, Rows::open(made, false)?);
        let mut tally = Tally::new(tolerance);
        let (before, after) = (recorded.schema.clone(), made.schema.clone());
        let rows = recorded.count.max(made.count);
        let pairs = compare_schemas(&before, &after, rows, &mut tally);
        tally.expect(rows * pairs.len() as u64);
        let mut start = 0;
        loop {
            let count = recorded.available()?.min(made.available()?);
            if count == 0 {
                break;
            }
            let part = Part { recorded: recorded.take(count), made: made.take(count), start };
            part.compare(&pairs, tolerance, &mut tally);
            start += count as u64;
        }
        let more = match (recorded.first_step()?, made.first_step()?) {
            (Some(left), Some(right)) => Some(left.min(right)),
            (left, right) => left.or(right),
        };
        if recorded.count != made.count {
            let count = (rows - start) * pairs.len() as u64;
            let step = [tally.earliest(), more].into_iter().flatten().min();
            tally.structure(Site { part: "", step }, count, || {
                ("the number of rows".to_owned(), recorded.count.to_string(), made.count.to_string())
            });
        }
        let texts = |schema: &SchemaRef| schema.metadata().clone().into_iter().collect();
        compare_metadata(&texts(&before), &texts(&after), &mut tally);
        Ok(tally.finish())
    }

    /// The last value of each name, if the table is a log of metrics (`name`, `value`).
    fn quotes(&self, file: &Path) -> Result<Vec<Quote>, Unreadable> {
        let mut rows = Rows::open(file, true)?;
        let place = |name| rows.schema.fields().iter().position(|field| field.name() == name);
        let (Some(name), Some(value), Some(_)) = (place("name"), place("value"), place(STEP)) else {
            return Ok(Vec::new());
        };
        let mut last = BTreeMap::new();
        let mut start = 0_usize;
        loop {
            let count = rows.available()?;
            if count == 0 {
                break;
            }
            let batch = rows.take(count);
            for row in 0..count {
                let pair = (Cell::of(batch.column(name), row), Cell::of(batch.column(value), row));
                if let (Cell::Text(name), Cell::Number(value)) = pair {
                    last.insert(name, (value.to_f64(), start + row));
                }
            }
            start += count;
        }
        let quote = |(name, (value, row))| Quote { name, value, precision: 0.0, place: format!("row {row}") };
        Ok(last.into_iter().map(quote).collect())
    }
}

/// A file that is read some rows at a time.
struct Rows {
    schema: SchemaRef,
    /// By the file's own account.
    count: u64,
    /// How many rows were read.
    read: u64,
    reader: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    is_recorded: bool,
}

impl Rows {
    fn open(path: &Path, is_recorded: bool) -> Result<Self, Unreadable> {
        let damaged = damaged(is_recorded);
        let file = File::open(path).map_err(unreadable(is_recorded))?;
        let open = || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
            let (schema, count) = (builder.schema().clone(), builder.metadata().file_metadata().num_rows());
            builder.build().map(|reader| (schema, count, reader))
        };
        let opened = guarded(open).map_err(|error| damaged(&error))?;
        let (schema, count, reader) = opened.map_err(|error| damaged(&error))?;
        let count = u64::try_from(count).map_err(|error| damaged(&error))?;
        Ok(Self { schema, count, read: 0, reader, batch: None, is_recorded })
    }

    /// Returns how many rows can be taken; 0 at the end.
    fn available(&mut self) -> Result<usize, Unreadable> {
        while self.batch.as_ref().is_none_or(|batch| batch.num_rows() == 0) {
            let damaged = damaged(self.is_recorded);
            let next = guarded(|| self.reader.next()).map_err(|error| damaged(&error))?;
            let Some(batch) = next else {
                if self.read != self.count {
                    return Err(damaged(&format!("it holds {} rows, and says {}", self.read, self.count)));
                }
                return Ok(0);
            };
            let batch = batch.map_err(|error| damaged(&error))?;
            self.read += batch.num_rows() as u64;
            self.batch = Some(batch);
        }
        Ok(self.batch.as_ref().map_or(0, RecordBatch::num_rows))
    }

    /// Returns the next `count` rows, which are available.
    fn take(&mut self, count: usize) -> RecordBatch {
        let batch = self.batch.take().expect("asked for as many rows as are available");
        self.batch = Some(batch.slice(count, batch.num_rows() - count));
        batch.slice(0, count)
    }

    /// Reads the file to its end, and returns the smallest step of the rows that were not taken.
    fn first_step(&mut self) -> Result<Option<u64>, Unreadable> {
        let mut first = None;
        loop {
            let count = self.available()?;
            if count == 0 {
                return Ok(first);
            }
            let batch = self.take(count);
            let steps = (0..count).filter_map(|row| step(&batch, row));
            first = first.into_iter().chain(steps).min();
        }
    }
}

fn damaged(is_recorded: bool) -> impl Fn(&dyn std::fmt::Display) -> Unreadable {
    move |error| Unreadable { is_recorded, reason: format!("not a table that can be read: {error}") }
}

/// Returns the step of a row, if the table has one.
fn step(batch: &RecordBatch, row: usize) -> Option<u64> {
    Cell::of(batch.column_by_name(STEP)?, row).integer().and_then(|step| u64::try_from(step).ok())
}

/// A column that both files have: its name and its places.
struct Pair {
    name: String,
    recorded: usize,
    made: usize,
}

/// Takes note of columns that are missing, new, or of another type; returns those whose values can be compared.
fn compare_schemas(recorded: &SchemaRef, made: &SchemaRef, rows: u64, tally: &mut Tally) -> Vec<Pair> {
    let shown = |field: Option<&Field>| {
        field.map_or("nothing".to_owned(), |field| {
            format!("{}{}", field.data_type(), if field.is_nullable() { " or null" } else { "" })
        })
    };
    let mut pairs = Vec::new();
    let mut unmatched: Vec<(usize, &Field)> = made.fields().iter().map(AsRef::as_ref).enumerate().collect();
    let mut differ = |before: Option<&Field>, after: Option<&Field>| {
        let Some(field) = before.or(after) else { return };
        tally.expect(rows);
        let place = || format!("column `{}`", field.name());
        tally.structure(Site { part: field.name(), step: None }, rows, || (place(), shown(before), shown(after)));
    };
    for (i, before) in recorded.fields().iter().enumerate() {
        let found = unmatched.iter().position(|(_, after)| after.name() == before.name());
        match found.map(|place| unmatched.remove(place)) {
            Some((j, after))
                if (before.data_type(), before.is_nullable()) == (after.data_type(), after.is_nullable()) =>
            {
                pairs.push(Pair { name: before.name().clone(), recorded: i, made: j });
            }
            after => differ(Some(before), after.map(|(_, field)| field)),
        }
    }
    for (_, after) in unmatched {
        differ(None, Some(after));
    }
    if !pairs.is_sorted_by_key(|pair| pair.made) {
        let order = |schema: &SchemaRef| {
            let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            names.join(", ")
        };
        let shown = || ("the order of the columns".to_owned(), order(recorded), order(made));
        tally.structure(Site { part: "", step: None }, 0, shown);
    }
    pairs
}

/// As many rows of both files, and their number.
struct Part {
    recorded: RecordBatch,
    made: RecordBatch,
    start: u64,
}

impl Part {
    fn compare(&self, pairs: &[Pair], tolerance: Tolerance, tally: &mut Tally) {
        for pair in pairs {
            let (before, after) = (self.recorded.column(pair.recorded), self.made.column(pair.made));
            // Equal bits: no NaN is lost, and zeros keep their signs.
            if before.to_data() == after.to_data() {
                continue;
            }
            for row in 0..self.recorded.num_rows() {
                let found = Cell::of(before, row).compare(&Cell::of(after, row), tolerance);
                let Some(found) = found else { continue };
                if let Some(largest) = found.largest {
                    tally.distance(largest);
                }
                let steps = [step(&self.recorded, row), step(&self.made, row)];
                let site = Site { part: &pair.name, step: steps.into_iter().flatten().min() };
                tally.values(site, 1, found.is_within, || {
                    let below = if found.below.is_empty() { String::new() } else { format!(" at `{}`", found.below) };
                    let row = format!("row {}{}", self.start + row as u64, self.texts(row, pair.recorded));
                    (format!("column `{}`, {row}{below}", pair.name), found.recorded, found.made)
                });
            }
        }
    }

    /// Returns the texts of a row in brackets: what it is about.
    fn texts(&self, row: usize, without: usize) -> String {
        let fields = self.recorded.schema();
        let texts = fields.fields().iter().enumerate().filter(|(i, field)| {
            *i != without && matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        });
        let texts: Vec<_> = texts
            .filter_map(|(i, _)| match Cell::of(self.recorded.column(i), row) {
                Cell::Text(text) => Some(format!("`{text}`")),
                _ => None,
            })
            .take(MOST_TEXTS)
            .collect();
        if texts.is_empty() { String::new() } else { format!(" ({})", texts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::metric_log::MetricLog;
    use crate::artifact::tables::{Column, to_bytes};
    use crate::formats::testing;
    use arrow::array::{ArrayRef, Float64Array, Int32Array, ListArray, StructArray, TimestampSecondArray};
    use arrow::datatypes::{Float32Type, Schema};
    use parquet::arrow::ArrowWriter;
    use std::sync::Arc;

    const NEAR: Tolerance = Tolerance { absolute: 0.01, relative: 0.0 };

    fn log(rows: &[(u64, &str, f64)]) -> Vec<u8> {
        let mut log = MetricLog::new();
        for (step, name, value) in rows {
            log.push(*step, *name, *value);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.parquet");
        log.write(&path).unwrap();
        std::fs::read(path).unwrap()
    }

    fn table(columns: &[(&str, Column)]) -> Vec<u8> {
        to_bytes(columns).unwrap()
    }

    fn arrays(columns: &[(&str, ArrayRef)], texts: &[(&str, &str)]) -> Vec<u8> {
        let fields: Vec<Field> =
            columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let texts = texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        let schema = Arc::new(Schema::new_with_metadata(fields, texts.collect::<arrow::datatypes::Metadata>()));
        let columns = columns.iter().map(|(_, array)| array.clone()).collect();
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    fn difference(recorded: &[u8], made: &[u8], tolerance: Tolerance) -> Difference {
        testing::difference("parquet", recorded, made, tolerance).unwrap().unwrap()
    }

    fn exactly(recorded: &[u8], made: &[u8]) -> Option<String> {
        testing::compared("parquet", recorded, made, Tolerance::EXACT).unwrap()
    }

    #[test]
    fn a_metric_that_differs_is_named_with_its_row_and_step() {
        let of = |value| log(&[(0, "train/loss/total", 2.0), (100, "train/loss/total", value), (100, "lr", 0.5)]);
        assert_eq!(exactly(&of(1.0), &of(1.0)), None);
        assert_eq!(
            exactly(&of(1.0), &of(1.5)).unwrap(),
            "column `value`, row 1 (`train/loss/total`), step 100: 1.0, now 1.5; 1 of 9 differ, \
             by at most 5.000e-1 (5.000e-1 of the value, 2251799813685248 ULP)"
        );
    }

    #[test]
    fn the_smallest_step_is_the_first_and_what_is_within_the_tolerance_comes_last() {
        let of = |a, b, c| log(&[(300, "x", a), (200, "x", b), (100, "x", c)]);
        let found = difference(&of(1.0, 1.0, 1.0), &of(2.0, 3.0, 1.001), Tolerance::EXACT);
        assert_eq!((found.step, found.made.as_str(), found.count), (Some(100), "1.001", 3));
        let found = difference(&of(1.0, 1.0, 1.0), &of(2.0, 3.0, 1.001), NEAR);
        assert_eq!((found.step, found.made.as_str(), found.is_within), (Some(200), "3.0", false));
        let found = difference(&of(1.0, 1.0, 1.0), &of(1.001, 1.0, 1.0), NEAR);
        assert_eq!((found.step, found.is_within), (Some(300), true));
    }

    #[test]
    fn rows_too_many_are_said_with_the_first_step_that_differs() {
        let recorded = log(&[(0, "a", 1.0), (10, "a", 1.0), (20, "a", 1.0)]);
        let made = log(&[(0, "a", 1.0), (10, "a", 1.0)]);
        assert_eq!(exactly(&recorded, &made).unwrap(), "the number of rows, step 20: 3, now 2; 3 of 9 differ");
        let made = log(&[(0, "a", 2.0), (10, "a", 1.0), (20, "a", 1.0), (5, "a", 1.0)]);
        let found = difference(&recorded, &made, Tolerance::EXACT);
        assert_eq!((&*found.place, found.step, found.count, found.total), ("the number of rows", Some(0), 4, 12));
    }

    #[test]
    fn columns_that_are_missing_new_or_of_another_type_come_first() {
        let recorded = table(&[("a", Column::Int32(vec![1, 2])), ("b", Column::Float32(vec![1.0, 2.0]))]);
        let made = table(&[("a", Column::Int64(vec![1, 2])), ("b", Column::Float32(vec![1.0, 3.0]))]);
        let found = difference(&recorded, &made, Tolerance::EXACT);
        assert_eq!((&*found.place, &*found.recorded, &*found.made), ("column `a`", "Int32", "Int64"));
        assert_eq!((found.count, found.total, found.parts), (3, 4, vec!["a".to_owned(), "b".to_owned()]));
        let made = table(&[("b", Column::Float32(vec![1.0, 2.0])), ("c", Column::Bool(vec![true, true]))]);
        let found = exactly(&recorded, &made).unwrap();
        assert_eq!(found, "column `a`: Int32, now nothing; 4 of 6 differ; in a, c");
        let made = table(&[("b", Column::Float32(vec![1.0, 2.0])), ("a", Column::Int32(vec![1, 2]))]);
        assert_eq!(exactly(&recorded, &made).unwrap(), "the order of the columns: a, b, now b, a; 0 of 4 differ");
        let made =
            table(&[("a", Column::OptionalInt32(vec![Some(1), Some(2)])), ("b", Column::Float32(vec![1.0, 2.0]))]);
        assert_eq!(exactly(&recorded, &made).unwrap(), "column `a`: Int32, now Int32 or null; 2 of 4 differ");
    }

    #[test]
    fn every_type_is_compared_by_its_value() {
        let cases = [
            (
                Column::Int64(vec![i64::MAX]),
                Column::Int64(vec![i64::MAX - 1]),
                "9223372036854775807, now 9223372036854775806",
            ),
            (Column::Int32(vec![1]), Column::Int32(vec![-1]), "1, now -1"),
            (Column::OptionalInt32(vec![None]), Column::OptionalInt32(vec![Some(0)]), "null, now 0"),
            (Column::Float32(vec![0.1]), Column::Float32(vec![0.2]), "0.1, now 0.2"),
            (Column::Float32(vec![0.0]), Column::Float32(vec![-0.0]), "0.0, now -0.0"),
            (Column::Text(vec!["ab".into()]), Column::Text(vec!["ac".into()]), "\"ab\", now \"ac\""),
            (Column::Bool(vec![true]), Column::Bool(vec![false]), "true, now false"),
        ];
        for (recorded, made, expected) in cases {
            let (recorded, made) = (table(&[("x", recorded)]), table(&[("x", made)]));
            let found = exactly(&recorded, &made).unwrap();
            assert!(found.starts_with(&format!("column `x`, row 0: {expected}; 1 of 1 differ")), "{found}");
        }
    }

    #[test]
    fn a_nan_equals_a_nan_of_the_same_bits() {
        let of = |bits| table(&[("x", Column::Float32(vec![1.0, f32::from_bits(bits)]))]);
        assert_eq!(exactly(&of(0x7fc0_0000), &of(0x7fc0_0000)), None);
        let found = exactly(&of(0x7fc0_0000), &of(0x7fc0_0001)).unwrap();
        assert!(
            found.starts_with("column `x`, row 1: NaN (0x7fc00000), now NaN (0x7fc00001); 1 of 2 differ"),
            "{found}"
        );
        assert!(difference(&of(0x7fc0_0000), &of(0x7fc0_0001), NEAR).is_within);
        assert!(!difference(&of(0x7fc0_0000), &of(0), NEAR).is_within);
    }

    #[test]
    fn lists_structs_and_times_are_compared_inside() {
        let list = |values: &[f32]| -> ArrayRef {
            let values = values.iter().copied().map(Some).collect::<Vec<_>>();
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([Some(values)]))
        };
        let of = |values: &[f32]| arrays(&[("ci", list(values))], &[]);
        assert_eq!(exactly(&of(&[1.0, 2.0]), &of(&[1.0, 2.0])), None);
        let found = exactly(&of(&[1.0, 2.0, 3.0]), &of(&[1.0, 2.5, 7.0])).unwrap();
        assert!(
            found.starts_with("column `ci`, row 0 at `[1]`: 2.0, now 2.5; 1 of 1 differ, by at most 4.000e0"),
            "{found}"
        );
        assert_eq!(
            exactly(&of(&[1.0]), &of(&[1.0, 2.0])).unwrap(),
            "column `ci`, row 0: a list of 1, now a list of 2; 1 of 1 differ"
        );
        let found = difference(&of(&[1.0, 2.0]), &of(&[1.001, 5.0]), NEAR);
        assert_eq!((&*found.place, found.is_within), ("column `ci`, row 0 at `[1]`", false));

        let structs = |x: f64, n: i32| -> ArrayRef {
            let field = |name, kind| Arc::new(Field::new(name, kind, false));
            Arc::new(StructArray::from(vec![
                (field("x", DataType::Float64), Arc::new(Float64Array::from(vec![x])) as ArrayRef),
                (field("n", DataType::Int32), Arc::new(Int32Array::from(vec![n])) as ArrayRef),
            ]))
        };
        let of = |x, n| arrays(&[("s", structs(x, n))], &[]);
        let found = difference(&of(1.0, 1), &of(1.001, 2), NEAR);
        assert_eq!((&*found.place, &*found.recorded, &*found.made), ("column `s`, row 0 at `.n`", "1", "2"));

        let of = |second| arrays(&[("at", Arc::new(TimestampSecondArray::from(vec![second])) as ArrayRef)], &[]);
        assert_eq!(exactly(&of(1), &of(1)), None);
        let found = exactly(&of(0), &of(60)).unwrap();
        assert_eq!(found, "column `at`, row 0: 1970-01-01T00:00:00, now 1970-01-01T00:01:00; 1 of 1 differ");
    }

    #[test]
    fn how_a_table_is_stored_does_not_count_but_its_texts_do() {
        let column = || Arc::new(Int32Array::from(vec![1; 5000])) as ArrayRef;
        let recorded = arrays(&[("x", column())], &[("about", "a")]);
        assert_eq!(exactly(&recorded, &arrays(&[("x", column())], &[("about", "a")])), None);
        assert_eq!(
            exactly(&recorded, &arrays(&[("x", column())], &[("about", "b")])).unwrap(),
            "metadata `about`: \"a\", now \"b\"; 1 of 5001 differ"
        );
        let (ours, theirs) =
            (table(&[("x", Column::OptionalInt32(vec![Some(1); 5000]))]), arrays(&[("x", column())], &[]));
        assert_ne!(ours, theirs);
        assert_eq!(exactly(&ours, &theirs), None);
    }

    #[test]
    fn a_difference_far_down_a_long_table_has_its_own_row() {
        let of = |last| {
            let mut values = vec![0; 3000];
            values.push(last);
            table(&[("x", Column::Int64(values))])
        };
        let found = exactly(&of(1), &of(2)).unwrap();
        assert!(found.starts_with("column `x`, row 3000: 1, now 2; 1 of 3001 differ"), "{found}");
    }

    #[test]
    fn the_last_value_of_each_metric_is_quoted() {
        let quotes = testing::quotes("parquet", &log(&[(0, "b", 1.0), (0, "a", 2.0), (5, "b", 3.0)]));
        let shown: Vec<_> =
            quotes.iter().map(|quote| (&*quote.name, quote.value, quote.precision, &*quote.place)).collect();
        assert_eq!(shown, [("a", 2.0, 0.0, "row 1"), ("b", 3.0, 0.0, "row 2")]);
        assert_eq!(testing::quotes("parquet", &table(&[("value", Column::Float64(vec![1.0]))])), []);
    }

    #[test]
    fn files_that_are_cut_off_are_unreadable() {
        let whole = log(&[(0, "b", 1.0), (0, "a", 2.0), (5, "b", 3.0)]);
        for length in 0..whole.len() {
            let error = testing::compared("parquet", &whole, &whole[..length], Tolerance::EXACT).unwrap_err();
            assert!(error.to_string().starts_with("the file made anew: not a table that can be read: "), "{error}");
        }
    }
}
