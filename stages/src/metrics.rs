//! The numbers a run records: step, name, value.

use std::path::Path;

use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use crate::artifact::tables::{self, Column};

/// A long table of metrics, in the order in which they were recorded.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MetricsLog {
    steps: Vec<i64>,
    names: Vec<String>,
    values: Vec<f64>,
}

impl MetricsLog {
    /// Returns an empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number; `step` counts the updates made before it was measured.
    pub fn record(&mut self, step: u64, name: impl Into<String>, value: f64) {
        self.steps.push(i64::try_from(step).expect("fewer than 2^63 steps"));
        self.names.push(name.into());
        self.values.push(value);
    }

    /// Returns the last value recorded under `name`.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<f64> {
        self.names.iter().rposition(|other| other == name).map(|at| self.values[at])
    }

    /// Writes the log as a Parquet table `step: Int64, name: Utf8, value: Float64`.
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
}
