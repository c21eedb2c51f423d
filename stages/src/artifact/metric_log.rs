//! The metrics of a run, one number per row: `step`, `name`, `value` (`metrics.parquet`).

use std::path::Path;

use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use super::tables::{self, Column};

/// Numbers by step and name, in the order they were measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricLog {
    steps: Vec<i64>,
    names: Vec<String>,
    values: Vec<f64>,
}

impl MetricLog {
    /// Returns an empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number; `step` counts the updates made before it was measured.
    pub fn push(&mut self, step: u64, name: impl Into<String>, value: f64) {
        self.steps.push(i64::try_from(step).expect("steps are far below 2^63"));
        self.names.push(name.into());
        self.values.push(value);
    }

    /// Forgets all rows but the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        self.steps.truncate(rows);
        self.names.truncate(rows);
        self.values.truncate(rows);
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Returns whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns all rows in order.
    pub fn rows(&self) -> impl Iterator<Item = (i64, &str, f64)> {
        self.steps.iter().zip(&self.names).zip(&self.values).map(|((step, name), value)| (*step, name.as_str(), *value))
    }

    /// Returns each name once, in the order of first measurement.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut seen = std::collections::BTreeSet::new();
        self.names.iter().map(String::as_str).filter(|name| seen.insert(*name)).collect()
    }

    /// Returns the steps and values of one metric.
    #[must_use]
    pub fn series(&self, name: &str) -> Vec<(i64, f64)> {
        self.rows().filter(|(_, known, _)| *known == name).map(|(step, _, value)| (step, value)).collect()
    }

    /// Returns the last value of one metric.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<f64> {
        self.names.iter().rposition(|known| known == name).map(|at| self.values[at])
    }

    /// Writes the log to `path`.
    ///
    /// # Errors
    /// [`StageError::Io`] if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        tables::write(
            path,
            &[
                ("step", Column::Int64(self.steps.clone())),
                ("name", Column::Text(self.names.clone())),
                ("value", Column::Float64(self.values.clone())),
            ],
        )
    }

    /// Returns the log at `path`.
    ///
    /// # Errors
    /// As [`tables::read`]; [`StageError::Failed`] if a column is missing.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let table = tables::read(path)?;
        Ok(Self {
            steps: table.int64("step")?.to_vec(),
            names: table.text("name")?.to_vec(),
            values: table.float64("value")?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::MetricLog;

    #[test]
    fn a_log_is_read_back_and_split_into_series() {
        let mut log = MetricLog::new();
        log.push(0, "train/loss/total", 2.0);
        log.push(0, "eval/l0/0.1_linear1", 3.0);
        log.push(100, "train/loss/total", 1.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.parquet");
        log.write(&path).unwrap();
        let back = MetricLog::read(&path).unwrap();
        assert_eq!(back, log);
        assert_eq!(back.names(), ["train/loss/total", "eval/l0/0.1_linear1"]);
        assert_eq!(back.series("train/loss/total"), [(0, 2.0), (100, 1.0)]);
        assert_eq!(back.last("train/loss/total"), Some(1.0));
        assert_eq!(back.last("train/loss"), None);
    }
}
