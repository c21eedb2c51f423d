//! Faithfulness: `Σ_s ‖W_s − (V_s U_s)ᵀ‖² / Σ_s numel(W_s)` (spec section 5.1; SPD paper, faithfulness loss).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::draws::Draws;
use super::super::model::{ComponentModel, Leaves};
use super::super::step::Step;
use super::{Extent, Loss, LossFacts};
use crate::bridge::{Backend, DeviceResult, Graph, Var};

/// Mean squared difference between the components' sum and the target's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Faithfulness {
    /// Weight in the total; 0 to log it only.
    pub coeff: f64,
}

impl LossFacts for Faithfulness {
    const CLASS: &'static str = "FaithfulnessLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }

    fn extent(&self) -> Extent {
        Extent::Parameters
    }
}

/// Returns the loss; it needs neither batch nor masks, so the warm-up calls it too.
///
/// # Errors
/// The device's.
pub fn faithfulness<D: Backend>(
    graph: &Graph<D>,
    model: &ComponentModel<D>,
    leaves: &Leaves<D>,
) -> DeviceResult<Var<D>, D> {
    let mut terms = Vec::new();
    let mut entries = 0;
    for (s, site) in model.sites().iter().enumerate() {
        let (v, u) = model.components(leaves, s);
        terms.push(graph.faithfulness(&site.weight, v, u)?);
        entries += site.shape().0 * site.shape().1;
    }
    graph.combine(&terms.into_iter().map(|term| (1.0 / entries as f64, term)).collect::<Vec<_>>())
}

impl<D: Backend> Loss<D> for Faithfulness {
    fn compute(&self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        faithfulness(step.graph, step.model, step.leaves)
    }
}
