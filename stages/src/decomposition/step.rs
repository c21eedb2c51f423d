//! One batch, ready for its losses: the clean pass and the causal importances, computed once and shared by all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::causal_importance::Importance;
use super::draws::{Draws, Sampling};
use super::loss::LossConfig;
use super::model::{CleanPass, ComponentModel, Leaves};
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::collective::{ALONE, Ranks};
use crate::data::{Batch, InputDistribution};

/// What the losses of a step need to know besides the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSettings {
    /// How mask sources are distributed.
    pub sampling: Sampling,
    /// Whether the delta component takes part.
    pub use_delta_component: bool,
    /// How many mask samples each stochastic loss averages.
    pub mask_samples: usize,
    /// How outputs are compared.
    pub output_loss: OutputLoss,
    /// The fraction of training done, step / steps.
    pub progress: f64,
}

/// How the reconstruction losses compare a masked model's output with the target's (spec section 5.0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputLoss {
    /// The mean squared difference of all outputs.
    Mse,
    /// The divergence of the softmax of the outputs, `KL(target ‖ masked)` in nats, a mean over positions.
    Kl,
}

impl OutputLoss {
    /// Returns how models with these inputs are usually compared: tokens are answered by logits, vectors by values.
    #[must_use]
    pub fn usual(data: &InputDistribution) -> Self {
        match data {
            InputDistribution::SparseFeatures(_) => Self::Mse,
            InputDistribution::InductionSequences(_) => Self::Kl,
        }
    }
}

/// A batch and everything computed from it before the losses.
pub struct Step<'a, D: Backend> {
    /// Where values are recorded.
    pub graph: &'a Graph<D>,
    /// The model.
    pub model: &'a ComponentModel<D>,
    /// Its parameters in this step.
    pub leaves: &'a Leaves<D>,
    /// The plain target's run.
    pub clean: CleanPass<D>,
    /// The causal importances of every site.
    pub importances: Vec<Importance<D>>,
    /// How many positions each row stands for, `(1, R)`; one each when absent.
    pub row_counts: Option<Var<D>>,
    /// The number of positions of the whole batch.
    pub positions: usize,
    /// How many consecutive rows are the positions of one sequence; 1 for vectors.
    pub sequence_length: usize,
    /// Who has the other rows of the batch.
    pub ranks: &'a Ranks<'a>,
    /// The rest.
    pub settings: StepSettings,
}

/// The value of one loss.
#[derive(Debug, Clone, PartialEq)]
pub struct LossValue {
    /// The name under which the reference logs it.
    pub class: &'static str,
    /// Its value, without its coefficient.
    pub value: f64,
}

impl<'a, D: Backend> Step<'a, D> {
    /// Runs the plain target and the causal-importance networks on `batch`.
    ///
    /// # Errors
    /// The device's.
    pub fn new(
        graph: &'a Graph<D>,
        model: &'a ComponentModel<D>,
        leaves: &'a Leaves<D>,
        batch: &Batch,
        settings: StepSettings,
        draws: &mut dyn Draws<D>,
    ) -> DeviceResult<Self, D> {
        let rows = batch.rows.len();
        let input = graph.upload(batch.input.clone(), (batch.features, rows))?;
        let row_counts = batch.counts.as_ref().map(|counts| graph.upload(counts.clone(), (1, rows))).transpose()?;
        let clean = model.clean_pass(graph, leaves, &input)?;
        let noise = match settings.sampling {
            Sampling::Continuous => None,
            Sampling::Binomial => {
                let sites = model.sites().iter().enumerate();
                Some(
                    sites
                        .map(|(s, site)| draws.importance_noise(graph, s, site.plan.components))
                        .collect::<Result<Vec<_>, _>>()?,
                )
            }
        };
        let importances = model.importances(graph, leaves, &clean, noise.as_deref())?;
        let (positions, sequence_length) = (batch.positions, batch.sequence_length);
        let ranks = &ALONE;
        Ok(Self { graph, model, leaves, clean, importances, row_counts, positions, sequence_length, ranks, settings })
    }

    /// Makes the step one rank's share of the batch: losses that need all rows at once ask the others.
    #[must_use]
    pub fn among(self, ranks: &'a Ranks<'a>) -> Self {
        Self { ranks, ..self }
    }

    /// Returns the weighted sum of the losses that `counts` accepts, and their own values; the value of the others is
    /// zero.
    ///
    /// # Errors
    /// The device's.
    pub fn total(
        &self,
        losses: &[LossConfig],
        counts: impl Fn(&LossConfig) -> bool,
        draws: &mut dyn Draws<D>,
    ) -> DeviceResult<(Var<D>, Vec<f64>), D> {
        let (mut terms, mut values) = (Vec::new(), vec![0.0; losses.len()]);
        for (index, loss) in losses.iter().enumerate().filter(|(_, loss)| counts(loss)) {
            let value = loss.on::<D>().compute(self, index, draws)?;
            values[index] = value.scalar();
            terms.push((loss.coeff(), value));
        }
        Ok((self.graph.combine(&terms)?, values))
    }

    /// Returns a copy of the step on `graph` in which nothing is traced, for an adversary's inner loop.
    pub(super) fn detached<'b>(&'b self, graph: &'b Graph<D>) -> DetachedStep<'b, D> {
        DetachedStep {
            outer: self,
            graph,
            leaves: Leaves(self.leaves.0.iter().map(|leaf| graph.detach(leaf)).collect()),
        }
    }
}

/// Keeps the detached leaves that a detached [`Step`] borrows.
pub(super) struct DetachedStep<'b, D: Backend> {
    outer: &'b Step<'b, D>,
    graph: &'b Graph<D>,
    leaves: Leaves<D>,
}

impl<D: Backend> DetachedStep<'_, D> {
    pub(super) fn step(&self) -> Step<'_, D> {
        let detach = |value: &Var<D>| self.graph.detach(value);
        Step {
            graph: self.graph,
            model: self.outer.model,
            leaves: &self.leaves,
            clean: self.outer.clean.detached(self.graph),
            importances: self
                .outer
                .importances
                .iter()
                .map(|i| Importance {
                    pre_sigmoid: detach(&i.pre_sigmoid),
                    lower: detach(&i.lower),
                    upper: detach(&i.upper),
                })
                .collect(),
            row_counts: self.outer.row_counts.clone(),
            positions: self.outer.positions,
            sequence_length: self.outer.sequence_length,
            ranks: self.outer.ranks,
            settings: self.outer.settings,
        }
    }
}
