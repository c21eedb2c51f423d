//! A decomposition from its first step to its last, with evaluation, records and checkpoints.

use spdflow_engine::kind::{StageContext, StageError};

use super::config::DecomposeParams;
use super::draws::{Sampling, training_draws};
use super::evaluation::{EvaluationRecords, Evaluator, Fit};
use super::export::state as whole_state;
use super::model::ComponentModel;
use super::site::plan;
use super::step::{OutputLoss, StepSettings};
use super::together::Together;
use super::trainer::{ClipNorms, StepReport, Trainer, unobserved};
use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::Tensors;
use crate::bridge::Backend;
use crate::checkpoint::Checkpoints;
use crate::data::InputDistribution;
use crate::models::{LayerKind, TargetConfig, TargetModel};
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;

/// A finished decomposition.
pub struct Finished<D: Backend> {
    /// The model and its parameters.
    pub trainer: Trainer<D>,
    /// Everything recorded on the way.
    pub metrics: MetricLog,
    /// The figures of slow evaluations and the saved components.
    pub records: EvaluationRecords,
}

/// Steps between two reports of progress.
const REPORT_EVERY: u64 = 10;

/// Returns the component model that `params` describe, freshly drawn.
///
/// # Errors
/// [`StageError::Failed`] if the target does not load or a site pattern does not fit it.
pub fn build<D: Backend>(
    device: &D,
    target: &TargetConfig,
    state: &Tensors,
    params: &DecomposeParams,
) -> Result<(ComponentModel<D>, Parameters<D>), StageError> {
    let target: Box<dyn TargetModel<D>> = target.load(device, state)?;
    let modules: Vec<(String, LayerKind)> =
        target.modules().iter().map(|module| (module.name.clone(), module.layer.kind())).collect();
    let sites = plan(&target.names(), &modules, &params.sites, &params.identities).map_err(|(index, message)| {
        let place = if index < params.sites.len() {
            format!("sites[{index}]")
        } else {
            format!("identities[{}]", index - params.sites.len())
        };
        StageError::failed_with_hint(format!("`{place}`: {message}"), "a pattern matches whole names; `*` crosses dots")
    })?;
    if let Some(message) = params
        .causal_importance
        .unfit(sites.iter().map(|site| (&site.name[..], target.modules()[site.module].layer.kind())))
    {
        return Err(StageError::failed_with_hint(
            format!("`causal_importance.kind`: {message}"),
            "`mlp` reads component activations, which an embedding has too",
        ));
    }
    ComponentModel::new(
        device,
        target,
        sites,
        params.causal_importance.clone(),
        params.sigmoid,
        params.seed,
        params.tie_components,
    )
    .map_err(|error| StageError::failed(format!("{error:?}")))
}

/// Returns whether all-zero rows may be counted instead of repeated: the model must not notice, and noise on causal
/// importances (binomial sampling) would tell such rows apart.
#[must_use]
pub fn counts_zero_rows<D: Backend>(model: &ComponentModel<D>, sampling: Sampling) -> bool {
    model.target().zero_rows_are_inert() && sampling == Sampling::Continuous
}

/// Decomposes a target, continuing from a checkpoint if there is one.
///
/// # Errors
/// [`StageError::Interrupted`] after saving the state when the user wants to stop; else whatever went wrong.
pub fn run<D: Backend>(
    device: &D,
    target: &TargetConfig,
    state: &Tensors,
    data: &InputDistribution,
    params: &DecomposeParams,
    context: &StageContext<'_>,
) -> Result<Finished<D>, StageError> {
    let failed = |error: D::Err| StageError::failed(format!("{error:?}"));
    let (model, parameters) = build(device, target, state, params)?;
    let sites: Vec<(String, usize)> =
        model.sites().iter().map(|site| (site.plan.name.clone(), site.plan.components)).collect();
    params.evaluation.check(&Fit { data, sites: &sites })?;
    let mut together = Together::new(context);
    together.check_batch(params, data)?;
    let compact = counts_zero_rows(&model, params.sampling);
    let settings = StepSettings {
        sampling: params.sampling,
        use_delta_component: params.use_delta_component,
        mask_samples: params.mask_samples,
        output_loss: params.output_loss.unwrap_or_else(|| OutputLoss::usual(data)),
        progress: 0.0,
    };
    let clip = ClipNorms { components: params.grad_clip.components, networks: params.grad_clip.causal_importance };
    let linked = &together.linked(device, context)?;
    let mut trainer =
        Trainer::new(linked, (model, parameters), params.losses.clone(), params.lr, params.steps, clip, settings)
            .with_precision(params.precision);
    let evaluator = Evaluator::new(params, data, settings, compact);
    let mut checkpoints = Checkpoints::new(context.scratch_dir, "decomposition", context.checkpoint_every);
    let records = EvaluationRecords::open(context.scratch_dir)?;
    let mut metrics = MetricLog::new();
    let mut first = match checkpoints.load() {
        // What rank 0 has comes to the others below.
        _ if !together.leads() => 0,
        Some((progress, tensors)) => {
            trainer.parameters.restore(&tensors, progress.updates)?;
            metrics = progress.metrics;
            context.progress.resumed(progress.step);
            progress.step
        }
        None => {
            warm_up(&mut trainer, params, &mut metrics).map_err(failed)?;
            0
        }
    };
    together.begin(linked, &mut trainer.parameters, &mut first)?;
    for step in first..=params.steps {
        let stop = together.should_stop(context);
        if together.leads() {
            checkpoints.keep_if(stop, step, &trainer.parameters, &metrics)?;
        }
        if stop {
            return Err(together.stopped(context, step));
        }
        let recorded = metrics.len();
        if let Some(moment) = evaluator.moment(step).filter(|_| together.leads()) {
            let findings = evaluator.evaluate(device, &trainer.model, &trainer.parameters, moment)?;
            for (name, value) in &findings.numbers {
                metrics.push(step, format!("eval/{name}"), *value);
            }
            records.keep(step, &findings)?;
        }
        if is_saved(params, step) && together.leads() {
            records.keep_components(step, &whole_state(&trainer.model, &trainer.parameters, state))?;
        }
        let at = u32::try_from(step)
            .map_err(|_| StageError::failed(format!("step {step}: expected fewer than 2^32 steps")))?;
        let stream = Purpose::Data.stream(params.seed, at, 0);
        let batch = data.batch_counting(stream, params.batch_size, compact);
        let parts = trainer.split(together.share(batch));
        let draws = training_draws(params.seed, at);
        let logged = step % params.log_every == 0 || step == params.steps;
        let details = logged.then_some(params.evaluation.alive_threshold as f32);
        let mut notes = together.notes(context, &trainer.parameters, logged);
        let report = trainer
            .step_among(&together.ranks, step, &parts, &draws, details, &mut unobserved::<D>, &mut notes)
            .map_err(failed)?;
        if let Err(error) = together.check(&format!("during step {step}")) {
            // No update was made: this is the state before the step, without what was recorded on the way to it.
            metrics.truncate(recorded);
            if together.leads() {
                checkpoints.keep_if(true, step, &trainer.parameters, &metrics)?;
            }
            return Err(error);
        }
        together.heed(&notes, step)?;
        if !report.total.is_finite() {
            return Err(StageError::failed_with_hint(
                format!("the loss is {} at step {step}", report.total),
                "a smaller learning rate (`lr.start`) or gradient clipping (`grad_clip`) usually helps",
            ));
        }
        if logged {
            record(&trainer, step, &report, &mut metrics);
        }
        if step % REPORT_EVERY == 0 || step == params.steps {
            context.progress.step(step, params.steps, Some(("loss", report.total)));
        }
    }
    together.end(linked);
    Ok(Finished { trainer, metrics, records })
}

/// Returns the steps at which there is an evaluation.
pub fn evaluated_steps(params: &DecomposeParams) -> impl Iterator<Item = u64> {
    let (steps, every) = (params.steps, params.evaluation.every);
    (0..steps).step_by(every as usize).chain([steps])
}

/// Returns the steps before the last at which components are saved.
pub fn saved_steps(params: &DecomposeParams) -> impl Iterator<Item = u64> {
    (1..params.steps).filter(|step| is_saved(params, *step))
}

fn is_saved(params: &DecomposeParams, step: u64) -> bool {
    step > 0 && step < params.steps && params.save_every.is_some_and(|every| step.is_multiple_of(every))
}

/// Makes the faithfulness warm-up, then forgets its optimiser (spec section 6.3).
fn warm_up<D: Backend>(
    trainer: &mut Trainer<D>,
    params: &DecomposeParams,
    metrics: &mut MetricLog,
) -> Result<(), D::Err> {
    let warmup = &params.faithfulness_warmup;
    for step in 0..warmup.steps {
        let loss = trainer.warmup_step(warmup.lr, warmup.weight_decay)?;
        if step % 100 == 0 || step + 1 == warmup.steps {
            metrics.push(step, "warmup/loss/FaithfulnessLoss", loss);
        }
    }
    trainer.parameters.reset_optimizer()
}

/// Records a logged step under the names of the reference (spec section 6.7).
fn record<D: Backend>(trainer: &Trainer<D>, step: u64, report: &StepReport, metrics: &mut MetricLog) {
    for loss in &report.losses {
        metrics.push(step, format!("train/loss/{}", loss.class), loss.value);
    }
    metrics.push(step, "train/loss/total", report.total);
    let Some(details) = &report.details else { return };
    for (site, l0) in trainer.model.sites().iter().zip(&details.l0) {
        metrics.push(step, format!("train/l0/{}", site.plan.name), *l0);
    }
    let (components, networks) = trainer.model.parameter_groups(&trainer.parameters);
    for (parameter, norm) in trainer.parameters.iter().zip(&details.gradient_norms) {
        let name = parameter.name.replacen("_components.", "components/", 1).replacen("_ci_fns.", "ci_fns/", 1);
        metrics.push(step, format!("train/grad_norms/{name}"), *norm);
    }
    let total =
        |range: std::ops::Range<usize>| details.gradient_norms[range].iter().map(|norm| norm * norm).sum::<f64>();
    let (components, networks) = (total(components), total(networks));
    metrics.push(step, "train/grad_norms/summary/components", components.sqrt());
    metrics.push(step, "train/grad_norms/summary/ci_fns", networks.sqrt());
    metrics.push(step, "train/grad_norms/summary/total", (components + networks).sqrt());
    metrics.push(step, "train/schedules/lr", report.learning_rate);
}
