//! What a residual MLP should answer: a function of each feature by itself (spec section 1.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::models::Activation;

/// The function of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelFunction {
    /// `act(c x) + x`, with the model's own nonlinearity.
    #[default]
    ActPlusResid,
    /// `|c x|`.
    Abs,
}

/// The labels of sparse feature vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// What becomes of each feature.
    pub function: LabelFunction,
    /// The nonlinearity of [`LabelFunction::ActPlusResid`].
    pub act_fn: Activation,
    /// c, one for each feature.
    pub coefficients: Vec<f32>,
}

impl Labels {
    /// Returns the coefficients that uniform draws in [0, 1) make: `1 + u`.
    #[must_use]
    pub fn coefficients(draws: &[f32]) -> Vec<f32> {
        draws.iter().map(|u| 1.0 + u).collect()
    }

    /// Returns the labels of `input` [features, rows].
    ///
    /// # Panics
    /// If `input` does not hold the same number of rows for each coefficient.
    #[must_use]
    pub fn of(&self, input: &[f32]) -> Vec<f32> {
        let features = self.coefficients.len();
        let rows = input.len() / features.max(1);
        assert_eq!(input.len(), features * rows, "labels of [{features}, {rows}]");
        let mut scaled = input.to_vec();
        for (row, c) in scaled.chunks_mut(rows.max(1)).zip(&self.coefficients) {
            row.iter_mut().for_each(|x| *x *= c);
        }
        match self.function {
            LabelFunction::Abs => scaled.iter().map(|x| x.abs()).collect(),
            LabelFunction::ActPlusResid => {
                self.act_fn.values(&scaled).iter().zip(input).map(|(activated, x)| activated + x).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_has_its_own_coefficient() {
        let labels = |function| Labels { function, act_fn: Activation::Relu, coefficients: vec![1.0, 2.0] };
        // Feature 0 of two rows, then feature 1.
        let input = [0.5, -1.0, 0.25, -3.0];
        assert_eq!(labels(LabelFunction::ActPlusResid).of(&input), [1.0, -1.0, 0.75, -3.0]);
        assert_eq!(labels(LabelFunction::Abs).of(&input), [0.5, 1.0, 0.5, 6.0]);
    }
}
