//! Heat maps of the one-hot probe: which component answers for which feature (spec section 5.10).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use super::super::draws::Draws;
use super::super::probe::PROBE_INPUT;
use super::super::step::Step;
use super::findings::Findings;
use super::fit::{Fit, Misfit};
use super::scene::Scene;
use super::{Measurement, Metric, MetricFacts};
use crate::artifact::ci_table::SiteCi;
use crate::bridge::{Backend, DeviceResult};
use crate::figure::{ColorMap, column_rows, importance_maps};
use crate::matrix::Matrix;
use crate::pattern;
use crate::solution::{DensePattern, IdentityPattern, shown_order};

/// Heat maps of causal importances, components in the order that shows them best.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PermutedCiPlots {
    /// Sites (shell patterns) ordered to show one component per feature, as sites that no pattern matches are. If both
    /// lists are empty, the evaluation's own `identity` and `dense` hold.
    #[serde(default)]
    pub identity_patterns: Vec<String>,
    /// Sites ordered by the sums of their components' importances.
    #[serde(default)]
    pub dense_patterns: Vec<String>,
}

impl MetricFacts for PermutedCiPlots {
    const IS_SLOW: bool = true;

    fn fits(&self, fit: &Fit<'_>) -> Result<(), Misfit> {
        fit.expect_vectors().map(|_| ())
    }
}

impl<D: Backend> Metric<D> for PermutedCiPlots {
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>> {
        Box::new(Measured { orders: Orders::new(&self.identity_patterns, &self.dense_patterns, scene) })
    }
}

struct Measured {
    orders: Orders,
}

impl<D: Backend> Measurement<D> for Measured {
    fn update(&mut self, _: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<(), D> {
        Ok(())
    }

    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError> {
        let mut findings = Findings::default();
        let probed = scene.probe()?;
        let mut draw = |key: &str, title: &str, map: ColorMap, importances: fn(&SiteCi) -> &Matrix| {
            let ordered = |ci: &SiteCi| {
                let matrix = importances(ci);
                Some((
                    format!("{}, input {PROBE_INPUT}", ci.site),
                    matrix.with_columns(&self.orders.of(&ci.site, matrix)),
                ))
            };
            let grid = column_rows(probed.iter().map(ordered).collect());
            if let Some(mut figure) = importance_maps(title, grid, map) {
                // Letters run along the rows, sites down the columns.
                figure.has_letters = false;
                findings.figure(key, figure);
            }
        };
        let key = "figures/causal_importances";
        draw(key, "Causal importances for one-hot inputs of 0.75", ColorMap::Blues, |ci| &ci.lower);
        let key = "figures/causal_importances_upper_leaky";
        draw(key, "Upper-leaky causal importances for one-hot inputs of 0.75", ColorMap::Reds, |ci| &ci.upper);
        Ok(findings)
    }
}

/// How components are ordered in figures, site by site.
pub(super) struct Orders {
    identity: Vec<String>,
    dense: Vec<String>,
}

impl Orders {
    /// Returns the orders that these patterns give, or the expected solution if there are none.
    pub(super) fn new<D: Backend>(identity: &[String], dense: &[String], scene: &Scene<'_, D>) -> Self {
        if identity.is_empty() && dense.is_empty() {
            let text = |pattern: &String| pattern.clone();
            Self {
                identity: scene.identity.iter().map(|IdentityPattern { pattern, .. }| text(pattern)).collect(),
                dense: scene.dense.iter().map(|DensePattern { pattern, .. }| text(pattern)).collect(),
            }
        } else {
            Self { identity: identity.to_vec(), dense: dense.to_vec() }
        }
    }

    /// Returns the order of components that shows `importances` `[inputs, C]` of `site` best.
    pub(super) fn of(&self, site: &str, importances: &Matrix) -> Vec<usize> {
        let is_in = |patterns: &[String]| patterns.iter().any(|text| pattern::matches(text, site));
        shown_order(importances, !is_in(&self.identity) && is_in(&self.dense))
    }
}
