//! Output error under random masks: what makes unimportant components truly ablatable (spec section 5.3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;

use super::super::draws::{DrawKey, Draws};
use super::super::routing::Routing;
use super::super::step::Step;
use super::ci_masked::routing_issues;
use super::reconstruction::{mean_output_error, only, output_error, routed, stochastic_masks};
use super::{Loss, LossFacts};
use crate::bridge::{Backend, DeviceResult, Var};

/// Output error with all sites under random masks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StochasticRecon {
    /// Weight in the total.
    pub coeff: f64,
}

impl LossFacts for StochasticRecon {
    const CLASS: &'static str = "StochasticReconLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }
}

impl<D: Backend> Loss<D> for StochasticRecon {
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let mut errors = Vec::new();
        for sample in 0..step.settings.mask_samples {
            let key = DrawKey { loss: index, class: Self::CLASS, sample, layer: None };
            errors.push(output_error(step, &stochastic_masks(step, key, draws)?)?);
        }
        mean_output_error(step, errors)
    }
}

/// The same, with a random subset of sites at each position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StochasticReconSubset {
    /// Weight in the total.
    pub coeff: f64,
    /// How positions are routed.
    #[serde(default)]
    pub routing: Routing,
}

impl LossFacts for StochasticReconSubset {
    const CLASS: &'static str = "StochasticReconSubsetLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }

    fn issues(&self) -> Vec<ParamIssue> {
        routing_issues(self.routing)
    }
}

impl<D: Backend> Loss<D> for StochasticReconSubset {
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let mut errors = Vec::new();
        for sample in 0..step.settings.mask_samples {
            let key = DrawKey { loss: index, class: Self::CLASS, sample, layer: None };
            let masks = stochastic_masks(step, key, draws)?;
            errors.push(output_error(step, &routed(step, key, self.routing, draws, masks)?)?);
        }
        mean_output_error(step, errors)
    }
}

/// The same, one site at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StochasticReconLayerwise {
    /// Weight in the total.
    pub coeff: f64,
}

impl LossFacts for StochasticReconLayerwise {
    const CLASS: &'static str = "StochasticReconLayerwiseLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }
}

impl<D: Backend> Loss<D> for StochasticReconLayerwise {
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let mut errors = Vec::new();
        for sample in 0..step.settings.mask_samples {
            let key = DrawKey { loss: index, class: Self::CLASS, sample, layer: None };
            let masks = stochastic_masks(step, key, draws)?;
            for s in 0..masks.len() {
                errors.push(output_error(step, &only(&masks, s))?);
            }
        }
        mean_output_error(step, errors)
    }
}
