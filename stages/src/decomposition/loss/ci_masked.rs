//! Output error with components masked by their causal importances, `m = g` (spec section 5.3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;

use super::super::draws::{DrawKey, Draws};
use super::super::routing::Routing;
use super::super::step::Step;
use super::reconstruction::{importance_masks, mean_output_error, only, output_error, routed};
use super::{Loss, LossFacts};
use crate::bridge::{Backend, DeviceResult, Var};

/// Output error with all sites masked by their causal importances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CiMaskedRecon {
    /// Weight in the total.
    pub coeff: f64,
}

impl LossFacts for CiMaskedRecon {
    const CLASS: &'static str = "CIMaskedReconLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }
}

impl<D: Backend> Loss<D> for CiMaskedRecon {
    fn compute(&self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        mean_output_error(step, vec![output_error(step, &importance_masks(step))?])
    }
}

/// The same, with a random subset of sites at each position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CiMaskedReconSubset {
    /// Weight in the total.
    pub coeff: f64,
    /// How positions are routed.
    #[serde(default)]
    pub routing: Routing,
}

impl LossFacts for CiMaskedReconSubset {
    const CLASS: &'static str = "CIMaskedReconSubsetLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }

    fn issues(&self) -> Vec<ParamIssue> {
        routing_issues(self.routing)
    }
}

impl<D: Backend> Loss<D> for CiMaskedReconSubset {
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let key = DrawKey { loss: index, class: Self::CLASS, sample: 0, layer: None };
        let masks = routed(step, key, self.routing, draws, importance_masks(step))?;
        mean_output_error(step, vec![output_error(step, &masks)?])
    }
}

/// The same, one site at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CiMaskedReconLayerwise {
    /// Weight in the total.
    pub coeff: f64,
}

impl LossFacts for CiMaskedReconLayerwise {
    const CLASS: &'static str = "CIMaskedReconLayerwiseLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }
}

impl<D: Backend> Loss<D> for CiMaskedReconLayerwise {
    fn compute(&self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let masks = importance_masks(step);
        let errors = (0..masks.len()).map(|s| output_error(step, &only(&masks, s))).collect::<Result<_, _>>()?;
        mean_output_error(step, errors)
    }
}

/// Returns what is wrong with a routing.
pub(in crate::decomposition) fn routing_issues(routing: Routing) -> Vec<ParamIssue> {
    match routing {
        Routing::StaticProbability(probability) if !(0.0..=1.0).contains(&probability.p) => {
            vec![ParamIssue::new("routing.p", format!("must be in [0, 1], found {}", probability.p))]
        }
        _ => Vec::new(),
    }
}
