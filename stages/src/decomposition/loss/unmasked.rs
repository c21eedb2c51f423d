//! Output error with every component on and no delta component (spec section 5.3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::draws::Draws;
use super::super::model::{ComponentMask, SiteMask};
use super::super::step::Step;
use super::reconstruction::{mean_output_error, output_error};
use super::{Loss, LossFacts};
use crate::bridge::{Backend, DeviceResult, Var};

/// Output error with every component on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnmaskedRecon {
    /// Weight in the total.
    pub coeff: f64,
}

impl LossFacts for UnmaskedRecon {
    const CLASS: &'static str = "UnmaskedReconLoss";

    fn coeff(&self) -> f64 {
        self.coeff
    }
}

impl<D: Backend> Loss<D> for UnmaskedRecon {
    fn compute(&self, step: &Step<'_, D>, _: usize, _: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D> {
        let ones = SiteMask { mask: ComponentMask::Ones, delta: None, routing: None };
        let masks = vec![Some(ones); step.importances.len()];
        mean_output_error(step, vec![output_error(step, &masks)?])
    }
}
