//! The losses (spec section 5): one file each, and one line each in the table below.
//!
//! A loss computes its scalar from a [`Step`]: the clean pass, the causal importances, and draws by name. Values are
//! means in the reference's sense, so that a batch's size does not change them.

mod ci_masked;
pub mod faithfulness;
mod hidden_acts;
mod importance_minimality;
mod pgd;
mod reconstruction;
mod stochastic;
mod unmasked;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::ParamIssue;

use super::draws::Draws;
use super::step::Step;
use crate::bridge::{Backend, DeviceResult, Var};

pub(in crate::decomposition) use ci_masked::routing_issues;
pub use ci_masked::{CiMaskedRecon, CiMaskedReconLayerwise, CiMaskedReconSubset};
pub use faithfulness::Faithfulness;
pub use hidden_acts::StochasticHiddenActsRecon;
pub use importance_minimality::ImportanceMinimality;
pub use pgd::{MaskScope, PgdAttack, PgdInit, PgdRecon, PgdReconLayerwise, PgdReconSubset};
pub(in crate::decomposition) use pgd::{Route, adversarial_masks};
pub(in crate::decomposition) use reconstruction::{
    Masks, output_elements, output_error, stochastic_masks, stochastic_masks_with,
};
pub use stochastic::{StochasticRecon, StochasticReconLayerwise, StochasticReconSubset};
pub use unmasked::UnmaskedRecon;

/// What every loss can do.
pub trait Loss<D: Backend> {
    /// Returns the loss on this batch as a scalar; `index` is the loss's place in the configuration.
    ///
    /// # Errors
    /// The device's.
    fn compute(&self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<Var<D>, D>;
}

/// What a loss is a sum over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Nothing of the batch: it depends on the parameters alone.
    Parameters,
    /// The rows of the batch: parts of a batch may be computed apart and added.
    Rows,
    /// All rows enter it together.
    Batch,
}

/// The facts about a loss that do not depend on the device.
pub trait LossFacts {
    /// The name under which the reference logs it: `loss/StochasticReconLoss`.
    const CLASS: &'static str;

    /// Its weight in the total.
    fn coeff(&self) -> f64;

    /// What it is a sum over.
    fn extent(&self) -> Extent {
        Extent::Rows
    }

    /// Returns what is wrong with its parameters; paths are relative to the loss.
    fn issues(&self) -> Vec<ParamIssue> {
        Vec::new()
    }
}

macro_rules! losses {
    ($($(#[$doc:meta])* $kind:ident),+ $(,)?) => {
        /// A loss and its parameters, chosen by `kind`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(tag = "kind")]
        pub enum LossConfig {
            $($(#[$doc])* $kind($kind),)+
        }

        impl LossConfig {
            /// The reference's names of all losses, in the order of the table.
            pub const CLASSES: &'static [&'static str] = &[$(<$kind as LossFacts>::CLASS),+];

            /// Returns the name under which the reference logs the loss.
            #[must_use]
            pub fn class(&self) -> &'static str {
                match self { $(Self::$kind(_) => <$kind as LossFacts>::CLASS,)+ }
            }

            /// Returns its weight in the total.
            #[must_use]
            pub fn coeff(&self) -> f64 {
                match self { $(Self::$kind(loss) => loss.coeff(),)+ }
            }

            /// Returns what it is a sum over.
            #[must_use]
            pub fn extent(&self) -> Extent {
                match self { $(Self::$kind(loss) => loss.extent(),)+ }
            }

            /// Returns what is wrong with its parameters, besides a coefficient that is no number.
            #[must_use]
            pub fn issues(&self) -> Vec<ParamIssue> {
                let mut issues = match self { $(Self::$kind(loss) => loss.issues(),)+ };
                if !self.coeff().is_finite() {
                    issues.push(ParamIssue::new("coeff", format!("must be a finite number, found {}", self.coeff())));
                }
                issues
            }

            /// Returns the loss as something that can be computed on `D`.
            #[must_use]
            pub fn on<D: Backend>(&self) -> &dyn Loss<D> {
                match self { $(Self::$kind(loss) => loss,)+ }
            }
        }
    };
}

losses! {
    /// Distance between the components' sum and the target's weights.
    Faithfulness,
    /// The price of important components.
    ImportanceMinimality,
    /// Output error with every component on.
    UnmaskedRecon,
    /// Output error with components masked by their causal importances.
    CiMaskedRecon,
    /// The same with a random subset of sites at each position.
    CiMaskedReconSubset,
    /// The same, one site at a time.
    CiMaskedReconLayerwise,
    /// Output error under random masks.
    StochasticRecon,
    /// The same with a random subset of sites at each position.
    StochasticReconSubset,
    /// The same, one site at a time.
    StochasticReconLayerwise,
    /// Error of every site's input under random masks.
    StochasticHiddenActsRecon,
    /// Output error under adversarial masks.
    PgdRecon,
    /// The same with a random subset of sites at each position.
    PgdReconSubset,
    /// The same, one site at a time.
    PgdReconLayerwise,
}
