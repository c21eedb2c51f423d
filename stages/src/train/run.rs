//! One training of a target from its first step to its last, with records and checkpoints.
//!
//! What differs between kinds of targets is the [`Objective`]: a loss on the batch that belongs to a stream of draws.

use std::sync::atomic::{AtomicU64, Ordering};

use spdflow_engine::kind::{ParamIssue, StageContext, StageError};
use spdflow_kernels::philox::Stream;

use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::Tensor;
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::checkpoint::Checkpoints;
use crate::optimizer::parameters::{AdamW, ClipGroup, Parameters};
use crate::optimizer::schedule::Schedule;
use crate::purpose::Purpose;

/// Steps between two reports of progress.
const REPORT_EVERY: u64 = 50;

/// What a training minimises.
pub(super) trait Objective<D: Backend> {
    /// Returns the loss on the batch that `stream` gives, with the parameters as `leaves`.
    fn loss(&self, graph: &Graph<D>, leaves: &[Var<D>], stream: Stream) -> DeviceResult<Var<D>, D>;
}

/// How the parameters are trained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    pub steps: u64,
    pub lr: Schedule,
    pub weight_decay: f64,
    /// Steps between records of the loss.
    pub log_every: u64,
    /// Batches over which the final loss is averaged.
    pub final_batches: u32,
}

impl Recipe {
    /// Returns what is wrong with the parameters of these names.
    pub(super) fn issues(&self) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        if self.log_every == 0 {
            issues.push(ParamIssue::new("log_every", "must be at least 1, found 0"));
        }
        if let Some((field, message)) = self.lr.mistake() {
            issues.push(ParamIssue::new(format!("lr.{field}"), message));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            issues.push(ParamIssue::new("weight_decay", format!("must not be negative, found {}", self.weight_decay)));
        }
        issues
    }
}

/// Which of a stage's trainings this is.
pub(super) struct Place<'a> {
    /// What its checkpoint is called.
    pub name: &'a str,
    /// The seed of its batches.
    pub seed: u64,
    /// The seed of the batches on which its final loss is measured.
    pub evaluation_seed: u64,
    /// How many steps all trainings of the stage have done, of how many.
    pub progress: (&'a AtomicU64, u64),
}

/// A finished training.
pub(super) struct Trained {
    /// The trained tensors under their names.
    pub state: Vec<(String, Tensor)>,
    pub metrics: MetricLog,
    pub final_loss: f64,
}

/// Makes the only training of a stage; as [`train`].
///
/// # Errors
/// Those of [`train`], and [`StageError::Failed`] if the final loss is not a number.
pub(super) fn train_alone<D: Backend>(
    device: &D,
    parameters: Parameters<D>,
    objective: &impl Objective<D>,
    recipe: Recipe,
    seed: u64,
    context: &StageContext<'_>,
) -> Result<Trained, StageError> {
    let place = Place { name: "training", seed, evaluation_seed: seed, progress: (&AtomicU64::new(0), recipe.steps) };
    let trained = train(device, parameters, objective, recipe, &place, context)?;
    if !trained.final_loss.is_finite() {
        return Err(StageError::failed_with_hint(
            "the training ended with a loss that is not a number",
            "a smaller learning rate (`lr.start`) usually helps",
        ));
    }
    Ok(trained)
}

/// Trains `parameters`, continuing from a checkpoint if there is one.
///
/// # Errors
/// [`StageError::Interrupted`] after saving the state when the user wants to stop; else whatever went wrong.
pub(super) fn train<D: Backend>(
    device: &D,
    mut parameters: Parameters<D>,
    objective: &impl Objective<D>,
    recipe: Recipe,
    place: &Place<'_>,
    context: &StageContext<'_>,
) -> Result<Trained, StageError> {
    let failed = |error: D::Err| StageError::failed(format!("{error:?}"));
    let mut checkpoints = Checkpoints::new(context.scratch_dir, place.name, context.checkpoint_every);
    let mut metrics = MetricLog::new();
    let mut first = 0;
    let (done, total) = place.progress;
    if let Some((progress, tensors)) = checkpoints.load() {
        parameters.restore(&tensors, progress.updates)?;
        metrics = progress.metrics;
        first = progress.step;
        done.fetch_add(first, Ordering::Relaxed);
        context.progress.resumed(first);
    }
    for step in first..recipe.steps {
        checkpoints.keep(context, step, &parameters, &metrics)?;
        let at = u32::try_from(step)
            .map_err(|_| StageError::failed(format!("step {step}: expected fewer than 2^32 steps")))?;
        let stream = Purpose::TargetData.stream(place.seed, at, 0);
        let loss = update(device, &mut parameters, objective, stream, recipe, step).map_err(failed)?;
        if step % recipe.log_every == 0 {
            metrics.push(step, "train/loss", loss);
        }
        let finished = done.fetch_add(1, Ordering::Relaxed) + 1;
        if finished.is_multiple_of(REPORT_EVERY) {
            context.progress.step(finished, total, Some(("loss", loss)));
        }
    }
    if first < recipe.steps {
        // Other trainings of the stage may still be running when this one is done: a stop must not cost it.
        checkpoints.save(recipe.steps, parameters.updates(), &metrics, &parameters.checkpoint())?;
    }
    let mut final_loss = 0.0;
    for batch in 0..recipe.final_batches {
        let stream = Purpose::TargetEvaluation.stream(place.evaluation_seed, batch, 0);
        let graph = Graph::detached(device);
        let loss = parameters.leaves(&graph).and_then(|leaves| objective.loss(&graph, &leaves, stream));
        final_loss += loss.map_err(failed)?.scalar() / f64::from(recipe.final_batches);
    }
    metrics.push(recipe.steps, "eval/loss", final_loss);
    Ok(Trained { state: parameters.state(), metrics, final_loss })
}

/// Makes one update; returns the loss before it.
fn update<D: Backend>(
    device: &D,
    parameters: &mut Parameters<D>,
    objective: &impl Objective<D>,
    stream: Stream,
    recipe: Recipe,
    step: u64,
) -> DeviceResult<f64, D> {
    let graph = Graph::recording(device);
    let leaves = parameters.leaves(&graph)?;
    let loss = objective.loss(&graph, &leaves, stream)?;
    let gradients = graph.gradients(&loss, &leaves)?;
    let all = ClipGroup { parameters: 0..parameters.len(), max_norm: None };
    let optimizer = AdamW { weight_decay: recipe.weight_decay, ..AdamW::DEFAULT };
    let learning_rate = recipe.lr.value(step, recipe.steps);
    parameters.update(gradients, &[all], optimizer, learning_rate)?;
    Ok(loss.scalar())
}
