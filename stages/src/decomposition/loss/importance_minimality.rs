//! Importance minimality: a p-norm of the upper causal importances, summed over components and sites (spec section 5.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;
use spdflow_kernels::importance_minimality::Constants;

use super::super::draws::Draws;
use super::super::step::Step;
use super::{Extent, Loss, LossFacts};
use crate::bridge::{Backend, DeviceResult, Var};
use crate::optimizer::schedule::annealed_exponent;

/// The price of important components.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportanceMinimality {
    /// Weight in the total.
    pub coeff: f64,
    /// The exponent.
    pub p: f64,
    /// Weight of the term that makes components active on many positions dearer. Depends on the batch size.
    #[serde(default)]
    pub beta: f64,
    /// The exponent after annealing; no annealing when absent.
    #[serde(default)]
    pub final_p: Option<f64>,
    /// The fraction of training at which annealing starts.
    #[serde(default = "one")]
    pub anneal_from: f64,
    /// The fraction of training at which annealing ends.
    #[serde(default = "one")]
    pub anneal_to: f64,
    /// Added to importances under the power.
    #[serde(default = "default_eps")]
    pub eps: f64,
}

fn one() -> f64 {
    1.0
}

fn default_eps() -> f64 {
    1e-12
}

impl ImportanceMinimality {
    /// Returns the constants at the fraction `progress` of training.
    #[must_use]
    pub fn constants(&self, progress: f64) -> Constants {
        let p = annealed_exponent(progress, self.p, self.anneal_from, self.anneal_to, self.final_p);
        Constants { p: p as f32, eps: self.eps as f32, beta: self.beta, ranks: 1.0 }
    }
}

impl LossFacts for ImportanceMinimality {
    const CLASS: &'static str = "ImportanceMinimalityLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }

    fn extent(&self) -> Extent {
        // The logarithm of the frequency term sees a component's sum over the whole batch.
        if self.beta == 0.0 { Extent::Rows } else { Extent::Batch }
    }

    fn issues(&self) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        for (path, p) in [("p", Some(self.p)), ("final_p", self.final_p)] {
            if let Some(p) = p.filter(|p| !(*p >= 0.0 && p.is_finite())) {
                issues.push(ParamIssue::new(path, format!("must not be negative, found {p}")));
            }
        }
        for (path, fraction) in [("anneal_from", self.anneal_from), ("anneal_to", self.anneal_to)] {
            if !(0.0..=1.0).contains(&fraction) {
                issues.push(ParamIssue::new(path, format!("must be in [0, 1], found {fraction}")));
            }
        }
        if self.anneal_from > self.anneal_to {
            issues.push(ParamIssue::new(
                "anneal_to",
                format!("must not be before anneal_from = {}, found {}", self.anneal_from, self.anneal_to),
            ));
        }
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            issues.push(ParamIssue::new("eps", format!("must not be negative, found {}", self.eps)));
        }
        issues
    }
}

impl<D: Backend> Loss<D> for ImportanceMinimality {
    fn compute(&self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let constants = self.constants(step.settings.progress);
        let mut terms = Vec::new();
        for importance in &step.importances {
            let term = step.graph.importance_minimality(
                &importance.upper,
                step.row_counts.as_ref(),
                constants,
                step.positions as f64,
                step.ranks,
            )?;
            terms.push((1.0, term));
        }
        step.graph.combine(&terms)
    }
}
