//! Error of every site's input under random masks (spec section 5.3, StochasticHiddenActsReconLoss).
//!
//! Embeddings read tokens and are left out. The first sites read the same input in both passes; they add nothing to the sum but count in its denominator, as in
//! the reference.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::draws::{DrawKey, Draws};
use super::super::step::Step;
use super::reconstruction::stochastic_masks;
use super::{Loss, LossFacts};
use crate::bridge::{Backend, DeviceResult, Var};
use crate::models::LayerKind;

/// Error of every site's input under random masks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StochasticHiddenActsRecon {
    /// Weight in the total.
    pub coeff: f64,
}

impl LossFacts for StochasticHiddenActsRecon {
    const CLASS: &'static str = "StochasticHiddenActsReconLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }
}

impl<D: Backend> Loss<D> for StochasticHiddenActsRecon {
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let (mut errors, mut elements) = (Vec::new(), 0);
        for sample in 0..step.settings.mask_samples {
            let key = DrawKey { loss: index, class: Self::CLASS, sample, layer: None };
            let masks = stochastic_masks(step, key, draws)?;
            let pass = step.model.masked_pass(step.graph, step.leaves, &step.clean, &masks)?;
            for (s, masked) in pass.site_inputs.iter().enumerate() {
                let masked = masked.as_ref().expect("every site is masked");
                // An embedding reads tokens, which are the same in every pass and no activations.
                if step.model.sites()[s].kind == LayerKind::Embedding {
                    continue;
                }
                let clean = step.model.clean_input(&step.clean, s);
                elements += clean.shape().0 * step.positions;
                if !masked.is_same(clean) {
                    errors.push(step.graph.squared_error(masked, clean)?);
                }
            }
        }
        step.graph.combine(&errors.into_iter().map(|error| (1.0 / elements as f64, error)).collect::<Vec<_>>())
    }
}
