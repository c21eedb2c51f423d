//! One optimisation step at a time, in the order of the reference (spec section 6.4).
//!
//! gradients ← losses on a batch; then clip components and networks apart, and AdamW. The loop around it, with data,
//! evaluation and checkpoints, is `run.rs`.

use dfdx::prelude::Gradients;

use super::draws::Draws;
use super::loss::LossConfig;
use super::loss::faithfulness::faithfulness;
use super::model::{ComponentModel, Leaves};
use super::step::{LossValue, Step, StepSettings};
use crate::bridge::{Backend, DeviceResult, Graph, Precision, Var};
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
        let mut gradients = graph.backward(&loss)?;
        let (components, _) = self.model.parameter_groups(&self.parameters);
        let group = ClipGroup { parameters: components, max_norm: None };
        let optimizer = AdamW { weight_decay, ..AdamW::DEFAULT };
        self.parameters.update(&graph, &mut gradients, &leaves.0, &[group], optimizer, learning_rate)?;
        Ok(value)
    }

    /// Computes losses and gradients on `batch` and, unless this is the last, merely logged step, updates.
    ///
    /// `observe` is called with the gradients before clipping.
    ///
    /// # Errors
    /// The device's.
    pub fn step(
        &mut self,
        step: u64,
        batch: &Batch,
        draws: &mut dyn Draws<D>,
        details: Option<f32>,
        observe: &mut Observer<'_, D>,
    ) -> DeviceResult<StepReport, D> {
        let graph = Graph::recording(&self.device).with_precision(self.precision);
        let leaves = Leaves(self.parameters.leaves(&graph)?);
        let settings = StepSettings { progress: step as f64 / self.steps.max(1) as f64, ..self.settings };
        let current = Step::new(&graph, &self.model, &leaves, batch, settings, draws)?;
        let (total, losses) = current.total(&self.losses, draws)?;
        let l0 = details.map(|threshold| current.l0(threshold));
        let mut gradients = graph.backward(&total)?;
        observe(&graph, &mut gradients, &leaves)?;
        let details = match l0 {
            None => None,
            Some(l0) => {
                let norm = |index| self.parameters.gradient_norm(&graph, &mut gradients, &leaves.0, index..index + 1);
                Some(StepDetails {
                    l0,
                    gradient_norms: (0..self.parameters.len()).map(norm).collect::<Result<_, _>>()?,
                })
            }
        };
        let learning_rate = self.schedule.value(step, self.steps);
        if step < self.steps {
            let (components, networks) = self.model.parameter_groups(&self.parameters);
            let groups = [
                ClipGroup { parameters: components, max_norm: self.clip.components },
                ClipGroup { parameters: networks, max_norm: self.clip.networks },
            ];
            self.parameters.update(&graph, &mut gradients, &leaves.0, &groups, AdamW::DEFAULT, learning_rate)?;
        }
        Ok(StepReport { total: total.scalar(), losses, learning_rate, details })
    }
}

/// Looks at the gradients of a step.
pub type Observer<'a, D> = dyn FnMut(&Graph<D>, &mut Gradients<f32, D>, &Leaves<D>) -> DeviceResult<(), D> + 'a;

/// An observer that looks away.
///
/// # Errors
/// None.
pub fn unobserved<D: Backend>(_: &Graph<D>, _: &mut Gradients<f32, D>, _: &Leaves<D>) -> DeviceResult<(), D> {
    Ok(())
}

impl<D: Backend> Step<'_, D> {
    /// Returns for each site the mean over positions of how many components' lower importance exceeds `threshold`
    /// (spec section 5.6).
    #[must_use]
    pub fn l0(&self, threshold: f32) -> Vec<f64> {
        let counts = self.row_counts.as_ref().map(Var::to_vec);
        self.importances
            .iter()
            .map(|importance| {
                let rows = importance.lower.shape().1.max(1);
                let lower = importance.lower.to_vec();
                let alive = lower.iter().enumerate().filter(|(_, g)| **g > threshold);
                alive.map(|(i, _)| counts.as_ref().map_or(1.0, |counts| f64::from(counts[i % rows]))).sum::<f64>()
                    / self.positions as f64
            })
            .collect()
    }
}
