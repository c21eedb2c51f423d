//! What a metric found: numbers, figures, and the data behind the figures.

use serde::{Deserialize, Serialize};

use crate::figure::Figure;

/// The findings of one or several metrics.
#[derive(Debug, Default)]
pub struct Findings {
    /// Numbers by the reference's name, without `eval/`.
    pub numbers: Vec<(String, f64)>,
    /// Figures by the reference's name, without `eval/`: `figures/uv_matrices`.
    pub figures: Vec<(String, Figure)>,
    /// What the figures show, for `evaluation.parquet`.
    pub data: Vec<Datum>,
}

/// One bar, dot or bin of a figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Datum {
    /// The figure: `l0/bar_chart`.
    pub key: String,
    /// The site or group.
    pub series: String,
    /// Where: a component's index, a bar's place, or a bin's lower end.
    pub x: f64,
    /// The width of a bin; 0 for what is no bin.
    pub width: f64,
    /// How much.
    pub value: f64,
}

impl Findings {
    /// Adds a number.
    pub fn number(&mut self, key: impl Into<String>, value: f64) {
        self.numbers.push((key.into(), value));
    }

    /// Adds a figure.
    pub fn figure(&mut self, key: impl Into<String>, figure: Figure) {
        self.figures.push((key.into(), figure));
    }

    /// Adds data of a figure: for each of `values` its place, width and value.
    pub fn data(&mut self, key: &str, series: &str, values: impl IntoIterator<Item = (f64, f64, f64)>) {
        self.data.extend(values.into_iter().map(|(x, width, value)| Datum {
            key: key.to_owned(),
            series: series.to_owned(),
            x,
            width,
            value,
        }));
    }

    /// Adds everything that another metric found.
    pub fn extend(&mut self, other: Self) {
        self.numbers.extend(other.numbers);
        self.figures.extend(other.figures);
        self.data.extend(other.data);
    }
}
