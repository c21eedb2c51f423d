//! One optimisation step at a time, in the order of the reference (spec section 6.4).
//!
//! gradients ← losses on a batch; then clip components and networks apart, and AdamW. The loop around it, with data,
//! evaluation and checkpoints, is `run.rs`.

use super::loss::LossConfig;
use super::loss::faithfulness::faithfulness;
use super::model::{ComponentModel, Leaves};
use super::shard::{DrawsOf, ShardSums, ShardWork, shard_width};
use super::step::{LossValue, StepSettings};
use crate::bridge::{Backend, DeviceResult, GradientBuffer, Graph, Precision};
use crate::collective::{ALONE, Ranks};
use crate::data::Batch;
use crate::optimizer::parameters::{AdamW, ClipGroup, Parameters};
use crate::optimizer::schedule::Schedule;

/// Gradient clipping: the largest global L2 norm of each group's gradients; unlimited when absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClipNorms {
    /// For V and U.
    pub components: Option<f64>,
    /// For the causal-importance networks.
    pub networks: Option<f64>,
}

/// What a training step found out, about the parameters before its update.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// The weighted sum of the losses.
    pub total: f64,
    /// Each loss in the order of the configuration.
    pub losses: Vec<LossValue>,
    /// The learning rate.
    pub learning_rate: f64,
    /// Details that only logged steps pay for.
    pub details: Option<StepDetails>,
}

/// The part of a report that costs extra time.
#[derive(Debug, Clone)]
pub struct StepDetails {
    /// For each site, the mean number of components whose lower importance is above the alive threshold.
    pub l0: Vec<f64>,
    /// The L2 norm of each parameter's gradient before clipping, in the order of the parameters.
    pub gradient_norms: Vec<f64>,
}

/// A component model being trained.
pub struct Trainer<D: Backend> {
    device: D,
    /// The model.
    pub model: ComponentModel<D>,
    /// Its parameters.
    pub parameters: Parameters<D>,
    losses: Vec<LossConfig>,
    schedule: Schedule,
    steps: u64,
    clip: ClipNorms,
    settings: StepSettings,
    precision: Precision,
}

impl<D: Backend> Trainer<D> {
    /// Returns a trainer for `steps` updates; `settings.progress` is overwritten in every step.
    pub fn new(
        device: &D,
        (model, parameters): (ComponentModel<D>, Parameters<D>),
        losses: Vec<LossConfig>,
        schedule: Schedule,
        steps: u64,
        clip: ClipNorms,
        settings: StepSettings,
    ) -> Self {
        Self {
            device: device.clone(),
            model,
            parameters,
            losses,
            schedule,
            steps,
            clip,
            settings,
            precision: Precision::F32,
        }
    }

    /// Makes steps compute with this precision; parameters, gradients and the optimiser stay f32.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Makes one faithfulness warm-up update of the components (spec section 6.3); returns the loss before it.
    ///
    /// # Errors
    /// The device's.
    pub fn warmup_step(&mut self, learning_rate: f64, weight_decay: f64) -> DeviceResult<f64, D> {
        let graph = Graph::recording(&self.device);
        let leaves = Leaves(self.parameters.leaves(&graph)?);
        let loss = faithfulness(&graph, &self.model, &leaves)?;
        let value = loss.scalar();
        let gradients = graph.gradients(&loss, &leaves.0)?;
        let (components, _) = self.model.parameter_groups(&self.parameters);
        let group = ClipGroup { parameters: components, max_norm: None };
        let optimizer = AdamW { weight_decay, ..AdamW::DEFAULT };
        self.parameters.update(gradients, &[group], optimizer, learning_rate)?;
        Ok(value)
    }

    /// Returns `batch` as the parts in which a step computes it; one if something needs the whole batch at once.
    ///
    /// Where the parts are cut depends on shapes alone.
    #[must_use]
    pub fn split(&self, batch: Batch) -> Vec<Batch> {
        match shard_width(&self.model, &self.losses) {
            Some(width) => batch.split(width),
            None => vec![batch],
        }
    }

    /// Computes losses and gradients on a batch and, unless this is the last, merely logged step, updates.
    ///
    /// * `parts`: the batch, [split](Self::split) or whole; `draws` makes the draws of one of them.
    ///
    /// `observe` is called with the gradients before clipping.
    ///
    /// # Errors
    /// The device's.
    pub fn step<'b>(
        &mut self,
        step: u64,
        parts: &'b [Batch],
        draws: &DrawsOf<'_, 'b, D>,
        details: Option<f32>,
        observe: &mut Observer<'_, D>,
    ) -> DeviceResult<StepReport, D> {
        self.step_among(&ALONE, step, parts, draws, details, observe, &mut [])
    }

    /// As [`step`](Self::step), together with other ranks: `parts` are this one's share. Each of `notes` is replaced by
    /// its sum over all ranks. If one of them is [lost](Ranks::lost), there is no update and the report means nothing.
    ///
    /// # Errors
    /// The device's.
    #[allow(clippy::too_many_arguments)]
    pub fn step_among<'b>(
        &mut self,
        ranks: &Ranks<'_>,
        step: u64,
        parts: &'b [Batch],
        draws: &DrawsOf<'_, 'b, D>,
        details: Option<f32>,
        observe: &mut Observer<'_, D>,
        notes: &mut [f64],
    ) -> DeviceResult<StepReport, D> {
        let work = ShardWork {
            device: &self.device,
            model: &self.model,
            losses: &self.losses,
            settings: StepSettings { progress: step as f64 / self.steps.max(1) as f64, ..self.settings },
            precision: self.precision,
            values: self.parameters.values()?,
            alive_threshold: details,
            ranks,
        };
        let ShardSums { total, losses, l0, gradients } = work.sums_over_ranks(parts, draws, notes)?;
        observe(&gradients);
        let details = match l0 {
            None => None,
            Some(l0) => {
                let norm = |gradient| self.parameters.gradient_norm(std::slice::from_ref(gradient));
                Some(StepDetails { l0, gradient_norms: gradients.iter().map(norm).collect::<Result<_, _>>()? })
            }
        };
        let learning_rate = self.schedule.value(step, self.steps);
        if step < self.steps && ranks.lost().is_none() {
            let (components, networks) = self.model.parameter_groups(&self.parameters);
            let groups = [
                ClipGroup { parameters: components, max_norm: self.clip.components },
                ClipGroup { parameters: networks, max_norm: self.clip.networks },
            ];
            self.parameters.update(gradients, &groups, AdamW::DEFAULT, learning_rate)?;
        }
        let losses = self.losses.iter().zip(losses);
        let losses = losses.map(|(loss, value)| LossValue { class: loss.class(), value }).collect();
        Ok(StepReport { total, losses, learning_rate, details })
    }
}

/// Looks at the gradients of a step, one for each parameter.
pub type Observer<'a, D> = dyn FnMut(&[GradientBuffer<D>]) + 'a;

/// An observer that looks away.
pub fn unobserved<D: Backend>(_: &[GradientBuffer<D>]) {}
