//! Evaluation (spec sections 5.5 to 5.10): losses and metrics measured while a decomposition trains.
//!
//! A metric is chosen by name like a loss: one file here and one line in the table below. It looks at every batch of an
//! evaluation through the same [`Step`] that the losses read, then says what it found: numbers for `metrics.parquet`,
//! figures, and the data behind them for `evaluation.parquet`. Slow metrics wait for slow evaluations. Nothing here
//! draws from a stream that training uses, so what is measured and how often cannot change what is learned.

pub mod activity;
mod ce_and_kl;
mod ci_histograms;
mod ci_l0;
mod ci_mean_per_component;
mod component_activation_density;
mod evaluator;
mod findings;
mod fit;
mod identity_ci_error;
mod loss_value;
mod next_token;
mod permuted_ci_plots;
mod pgd_multi_batch;
mod record;
mod scene;
mod subset_ce_and_kl;
#[cfg(test)]
mod tests;
mod uv_plots;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{ParamIssue, StageError};

use super::draws::Draws;
use super::step::Step;
use crate::bridge::{Backend, DeviceResult};

pub use ce_and_kl::CeAndKl;
pub use ci_histograms::CiHistograms;
pub use ci_l0::CiL0;
pub use ci_mean_per_component::CiMeanPerComponent;
pub use component_activation_density::ComponentActivationDensity;
pub use evaluator::{Evaluator, Moment};
pub use findings::{Datum, Findings};
pub use fit::{Fit, Misfit};
pub use identity_ci_error::IdentityCiError;
pub use permuted_ci_plots::PermutedCiPlots;
pub use pgd_multi_batch::{AttackSource, MultiBatchAttack, PgdMultiBatchRecon, PgdMultiBatchReconSubset};
pub use record::EvaluationRecords;
pub(super) use scene::END_OF_BATCHES;
pub use scene::{EvaluationSource, Scene, measure};
pub use subset_ce_and_kl::StochasticReconSubsetCeAndKl;
pub use uv_plots::UvPlots;

/// The facts about a metric that do not depend on the device.
pub trait MetricFacts {
    /// Whether it is measured on slow evaluations only.
    const IS_SLOW: bool;

    /// Returns how many passes over batches of its own it makes in one evaluation; each needs a number of its own.
    fn passes(&self) -> u64 {
        0
    }

    /// Returns what is wrong with its parameters; paths are relative to the metric.
    fn issues(&self) -> Vec<ParamIssue> {
        Vec::new()
    }

    /// Returns why it cannot be measured on a model, if it cannot.
    ///
    /// # Errors
    /// What the metric expects of the model, and what was found.
    fn fits(&self, _: &Fit<'_>) -> Result<(), Misfit> {
        Ok(())
    }
}

/// A metric as the parameters describe it.
pub trait Metric<D: Backend> {
    /// Returns a measurement that has seen nothing yet.
    fn start(&self, scene: &Scene<'_, D>) -> Box<dyn Measurement<D>>;
}

/// A metric in the middle of an evaluation.
pub trait Measurement<D: Backend> {
    /// Looks at one batch; `index` is what the metric's draws are named by.
    ///
    /// # Errors
    /// The device's.
    fn update(&mut self, step: &Step<'_, D>, index: usize, draws: &mut dyn Draws<D>) -> DeviceResult<(), D>;

    /// Returns what all batches together say.
    ///
    /// # Errors
    /// [`StageError::Failed`] if the model has not got what the metric looks for.
    fn compute(self: Box<Self>, scene: &Scene<'_, D>) -> Result<Findings, StageError>;
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $kind:ident),+ $(,)?) => {
        /// A metric and its parameters, chosen by `kind`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(tag = "kind")]
        pub enum MetricConfig {
            $($(#[$doc])* $kind($kind),)+
        }

        impl MetricConfig {
            /// Returns whether it is measured on slow evaluations only.
            #[must_use]
            pub fn is_slow(&self) -> bool {
                match self { $(Self::$kind(_) => <$kind as MetricFacts>::IS_SLOW,)+ }
            }

            /// Returns how many passes over batches of its own it makes in one evaluation.
            #[must_use]
            pub fn passes(&self) -> u64 {
                match self { $(Self::$kind(metric) => metric.passes(),)+ }
            }

            /// Returns what is wrong with its parameters.
            #[must_use]
            pub fn issues(&self) -> Vec<ParamIssue> {
                match self { $(Self::$kind(metric) => metric.issues(),)+ }
            }

            /// Returns why it cannot be measured on a model, if it cannot.
            ///
            /// # Errors
            /// What the metric expects of the model, and what was found.
            pub fn fits(&self, fit: &Fit<'_>) -> Result<(), Misfit> {
                match self { $(Self::$kind(metric) => metric.fits(fit),)+ }
            }

            /// Returns the name by which pipelines choose it.
            #[must_use]
            pub fn kind(&self) -> String {
                match serde_json::to_value(self) {
                    Ok(serde_json::Value::Object(fields)) => fields.keys().next().cloned(),
                    _ => None,
                }
                .expect("a metric is a table of one key")
            }

            /// Returns the metric as something that can be measured on `D`.
            #[must_use]
            pub fn on<D: Backend>(&self) -> &dyn Metric<D> {
                match self { $(Self::$kind(metric) => metric,)+ }
            }
        }
    };
}

metrics! {
    /// How many components are important at once, site by site and for groups of sites.
    CiL0,
    /// Wrong entries of the one-hot probe's causal importances, against the expected solution.
    IdentityCiError,
    /// Histograms of causal importances, before and after squashing.
    CiHistograms,
    /// How often each component is important.
    ComponentActivationDensity,
    /// The mean causal importance of each component, largest first.
    CiMeanPerComponent,
    /// Heat maps of the one-hot probe's causal importances, components in the order that shows them best.
    PermutedCiPlots,
    /// Heat maps of V and U, components in the same order.
    UvPlots,
    /// Output error under adversarial masks that many batches share.
    PgdMultiBatchRecon,
    /// The same with a random subset of sites at each position.
    PgdMultiBatchReconSubset,
    /// How well a masked model of tokens still predicts, under six kinds of masks.
    CeAndKl,
    /// The same with subsets of sites under stochastic masks, and the worst of them.
    StochasticReconSubsetCeAndKl,
}
