//! One training of a target from its first step to its last, with records and checkpoints.
//!
//! What differs between kinds of targets is the [`Objective`]: a loss on the batch that belongs to a stream of draws. A
//! batch may be computed in parts, side by side; losses and gradients are summed in their order.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use spdflow_engine::kind::{ParamIssue, StageContext, StageError};
use spdflow_kernels::parallel;
use spdflow_kernels::philox::Stream;

use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::Tensor;
use crate::bridge::{Backend, DeviceResult, GradientBuffer, Graph, Var, sum_gradients};
use crate::checkpoint::Checkpoints;
use crate::data::parts;
use crate::optimizer::parameters::{AdamW, ClipGroup, Parameters};
use crate::optimizer::schedule::Schedule;
use crate::purpose::Purpose;

/// Steps between two reports of progress.
const REPORT_EVERY: u64 = 50;

/// What a training minimises.
pub(super) trait Objective<D: Backend>: Sync {
    /// Returns the rows of each part in which a batch is computed, of which there is at least one. They depend on shapes
    /// alone.
    fn parts(&self) -> Vec<Range<usize>>;

    /// Returns what `rows` contribute to the loss on the batch that `stream` gives, with the parameters as `leaves`.
    fn loss(&self, graph: &Graph<D>, leaves: &[Var<D>], stream: Stream, rows: Range<usize>) -> DeviceResult<Var<D>, D>;
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
        for rows in objective.parts() {
            let graph = Graph::detached(device);
            let loss = parameters.leaves(&graph).and_then(|leaves| objective.loss(&graph, &leaves, stream, rows));
            final_loss += loss.map_err(failed)?.scalar() / f64::from(recipe.final_batches);
        }
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
    let (loss, gradients) = loss_and_gradients(device, parameters, objective, stream)?;
    let all = ClipGroup { parameters: 0..parameters.len(), max_norm: None };
    let optimizer = AdamW { weight_decay: recipe.weight_decay, ..AdamW::DEFAULT };
    let learning_rate = recipe.lr.value(step, recipe.steps);
    parameters.update(gradients, &[all], optimizer, learning_rate)?;
    Ok(loss)
}

/// Returns the loss on a batch and the gradient of each parameter.
fn loss_and_gradients<D: Backend>(
    device: &D,
    parameters: &Parameters<D>,
    objective: &impl Objective<D>,
    stream: Stream,
) -> DeviceResult<(f64, Vec<GradientBuffer<D>>), D> {
    let values = parameters.values()?;
    let of_part = |rows: Range<usize>| -> DeviceResult<_, D> {
        let graph = Graph::recording(device);
        let leaves = values.iter().map(|value| graph.leaf(value.clone())).collect::<DeviceResult<Vec<_>, D>>()?;
        let loss = objective.loss(&graph, &leaves, stream, rows)?;
        Ok((loss.scalar(), graph.gradients(&loss, &leaves)?))
    };
    let mut parts = objective.parts();
    if parts.len() == 1 {
        return of_part(parts.remove(0));
    }
    let parts: Vec<_> = parts.into_par_iter().map(|rows| parallel::on_this_thread(|| of_part(rows))).collect();
    let mut parts = parts.into_iter();
    let (mut loss, mut gradients) = parts.next().expect("a batch has a part")?;
    for part in parts {
        let (more, of_more) = part?;
        loss += more;
        gradients = sum_gradients(device, gradients, of_more)?;
    }
    Ok((loss, gradients))
}

/// Elements of one array of activations in a part, about: an operation's arrays stay near the core.
const PART_ELEMENTS: usize = 1 << 15;

/// Returns the rows of each part of a batch of `rows` rows, or sequences, of up to `elements` numbers each. Parts are
/// multiples of `unit`.
pub(super) fn parts_of(rows: usize, elements: usize, unit: usize) -> Vec<Range<usize>> {
    parts(rows, (PART_ELEMENTS / elements.max(1)).max(1), unit)
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::Cpu;

    use super::*;
    use crate::bridge::Buffers;

    /// `Σ_i (w·i)²/2` over the rows of a batch, whose gradient is `w Σ_i i²`.
    struct Squares(Vec<Range<usize>>);

    impl Objective<Cpu> for Squares {
        fn parts(&self) -> Vec<Range<usize>> {
            self.0.clone()
        }

        fn loss(
            &self,
            graph: &Graph<Cpu>,
            leaves: &[Var<Cpu>],
            _: Stream,
            rows: Range<usize>,
        ) -> DeviceResult<Var<Cpu>, Cpu> {
            let count = rows.len();
            let input = graph.upload(rows.map(|i| i as f32).collect(), (1, count))?;
            let zeros = graph.upload(vec![0.0; count], (1, count))?;
            graph.combine(&[(0.5, graph.squared_error(&graph.apply(&leaves[0], &input)?, &zeros)?)])
        }
    }

    #[test]
    fn losses_and_gradients_of_parts_are_summed() {
        let device = Cpu::default();
        let mut parameters = Parameters::new(&device);
        parameters.push("w".to_owned(), vec![1, 1], (1, 1), vec![3.0]).expect("enough memory");
        let stream = Purpose::TargetData.stream(0, 0, 0);
        for parts in [vec![0..6], vec![0..2, 2..5, 5..6]] {
            let (loss, gradients) =
                loss_and_gradients(&device, &parameters, &Squares(parts), stream).expect("enough memory");
            // 0 + 1 + 4 + 9 + 16 + 25 = 55; 55 · 9 / 2 and 55 · 3.
            assert_eq!((loss, Cpu::read_gradient(&gradients[0])), (247.5, vec![165.0]));
        }
    }

    #[test]
    fn sums_over_parts_have_the_same_bits_for_any_number_of_threads() {
        let device = Cpu::default();
        let mut parameters = Parameters::new(&device);
        parameters.push("w".to_owned(), vec![1, 1], (1, 1), vec![0.3]).expect("enough memory");
        let stream = Purpose::TargetData.stream(0, 0, 0);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| {
                let squares = Squares(parts(5000, 70, 1));
                let (loss, gradients) =
                    loss_and_gradients(&device, &parameters, &squares, stream).expect("enough memory");
                (loss.to_bits(), Cpu::read_gradient(&gradients[0])[0].to_bits())
            })
        };
        assert!(run(1) == run(2) && run(1) == run(3));
    }

    #[test]
    fn batches_of_small_models_stay_whole() {
        assert_eq!(parts_of(1024, 5, 64), [0..1024]);
        let parts = parts_of(8192, 40, 64);
        assert_eq!((parts.len(), parts[0].clone(), parts[11].clone()), (12, 0..704, 7744..8192));
    }
}
