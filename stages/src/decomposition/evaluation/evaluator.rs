//! What is measured at the evaluations of one run.
//!
//! Batches are numbered across evaluations, so every one sees fresh data.

use std::cell::OnceCell;

use spdflow_engine::kind::StageError;

use super::super::config::DecomposeParams;
use super::super::draws::{Draws, StreamDraws};
use super::super::loss::LossConfig;
use super::super::model::ComponentModel;
use super::super::step::StepSettings;
use super::findings::Findings;
use super::scene::{END_OF_BATCHES, EvaluationSource, Scene, measure};
use super::{CiL0, IdentityCiError, MetricConfig};
use crate::bridge::Backend;
use crate::data::{Batch, InputDistribution};
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;
use crate::solution::{DensePattern, IdentityPattern};

/// Everything measured at every evaluation of a run.
pub struct Evaluator {
    /// All losses, those of the training first, each class once.
    losses: Vec<LossConfig>,
    metrics: Vec<MetricConfig>,
    data: InputDistribution,
    identity: Vec<IdentityPattern>,
    dense: Vec<DensePattern>,
    compact: bool,
    seed: u64,
    steps: u64,
    every: u64,
    slow_every: u64,
    slow_on_first_step: bool,
    batches: usize,
    batch_size: usize,
    alive_threshold: f64,
    settings: StepSettings,
}

/// When an evaluation takes place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Updates made before it.
    pub step: u64,
    /// Counts evaluations from 0.
    pub number: u64,
    /// The fraction of training done.
    pub progress: f64,
    /// Whether slow metrics are measured and figures drawn.
    pub is_slow: bool,
}

impl Evaluator {
    /// Returns the evaluator for a run with these parameters; `compact` says whether all-zero rows may be counted.
    #[must_use]
    pub fn new(params: &DecomposeParams, data: &InputDistribution, settings: StepSettings, compact: bool) -> Self {
        let evaluation = &params.evaluation;
        let mut losses = params.losses.clone();
        for loss in &evaluation.losses {
            match losses.iter_mut().find(|other| other.class() == loss.class()) {
                Some(other) => *other = loss.clone(),
                None => losses.push(loss.clone()),
            }
        }
        Self {
            losses,
            metrics: with_standard(evaluation.metrics.clone(), &evaluation.identity, &evaluation.dense),
            data: data.clone(),
            identity: evaluation.identity.clone(),
            dense: evaluation.dense.clone(),
            compact,
            seed: params.seed,
            steps: params.steps,
            every: evaluation.every,
            slow_every: evaluation.slow_every.unwrap_or(evaluation.every),
            slow_on_first_step: evaluation.slow_on_first_step,
            batches: evaluation.batches,
            batch_size: evaluation.batch_size.unwrap_or(params.batch_size),
            alive_threshold: evaluation.alive_threshold,
            settings,
        }
    }

    /// Returns the evaluation before update `step`, if there is one; the last step always has a slow one.
    #[must_use]
    pub fn moment(&self, step: u64) -> Option<Moment> {
        let is_last = step == self.steps;
        if !step.is_multiple_of(self.every) && !is_last {
            return None;
        }
        let is_slow = is_last || if step == 0 { self.slow_on_first_step } else { step.is_multiple_of(self.slow_every) };
        let progress = step as f64 / self.steps.max(1) as f64;
        Some(Moment { step, number: step.div_ceil(self.every), progress, is_slow })
    }

    /// Measures the model as it is.
    ///
    /// # Errors
    /// [`StageError::Failed`] if memory runs out or a metric does not fit the model.
    pub fn evaluate<D: Backend>(
        &self,
        device: &D,
        model: &ComponentModel<D>,
        parameters: &Parameters<D>,
        moment: Moment,
    ) -> Result<Findings, StageError> {
        let scene = Scene {
            device,
            model,
            parameters,
            data: &self.data,
            settings: StepSettings { progress: moment.progress, ..self.settings },
            identity: &self.identity,
            dense: &self.dense,
            alive_threshold: self.alive_threshold,
            batch_size: self.batch_size,
            compact: self.compact,
            seed: self.seed,
            number: moment.number,
            is_slow: moment.is_slow,
            probed: OnceCell::new(),
        };
        let source = Streams { evaluator: self, first: moment.number * self.batches as u64 };
        measure(&scene, &self.losses, &self.metrics, self.batches, &source)
    }
}

/// Adds the metrics that every evaluation has: L0, and the error against the expected solution if there is one.
fn with_standard(
    mut metrics: Vec<MetricConfig>,
    identity: &[IdentityPattern],
    dense: &[DensePattern],
) -> Vec<MetricConfig> {
    if !metrics.iter().any(|metric| matches!(metric, MetricConfig::CiL0(_))) {
        metrics.insert(0, MetricConfig::CiL0(CiL0::unseen()));
    }
    let has_solution = !identity.is_empty() || !dense.is_empty();
    if has_solution && !metrics.iter().any(|metric| matches!(metric, MetricConfig::IdentityCiError(_))) {
        metrics.push(MetricConfig::IdentityCiError(IdentityCiError::default()));
    }
    metrics
}

/// The streams of evaluation.
struct Streams<'e> {
    evaluator: &'e Evaluator,
    /// The running number of the evaluation's first batch.
    first: u64,
}

impl Streams<'_> {
    fn index(&self, batch: usize) -> u32 {
        let number = u32::try_from(self.first + batch as u64).ok().filter(|number| *number < END_OF_BATCHES);
        number.expect("fewer than 2^31 evaluation batches")
    }
}

impl<D: Backend> EvaluationSource<D> for Streams<'_> {
    fn batch(&self, batch: usize) -> Batch {
        let evaluator = self.evaluator;
        let stream = Purpose::EvaluationData.stream(evaluator.seed, self.index(batch), 0);
        evaluator.data.batch_counting(stream, evaluator.batch_size, evaluator.compact)
    }

    fn draws<'a>(&'a self, batch: usize, rows: &'a [u32]) -> Box<dyn Draws<D> + 'a> {
        Box::new(StreamDraws { seed: self.evaluator.seed, step: self.index(batch), evaluation: true, rows })
    }
}
