//! A loss summed over the batches of an evaluation.

use spdflow_kernels::importance_minimality::{Constants, value};

use super::super::draws::Draws;
use super::super::loss::LossConfig;
use super::super::step::Step;
use crate::bridge::{Backend, DeviceResult, Var};

/// The reference's metric adds this to importances, whatever `eps` the loss has.
const EPS: f32 = 1e-12;

/// What the batches of an evaluation say about a loss.
pub(super) enum LossValue {
    /// Batches have equal sizes, so the mean of means is the mean.
    Mean { sum: f64, batches: usize },
    /// Importance minimality pools its sums over all batches before the logarithm, as the reference's metric does.
    Pooled { sums: Vec<Vec<f64>>, positions: f64, constants: Constants },
}

impl LossValue {
    /// Returns the value of no batch.
    pub(super) fn start(loss: &LossConfig, progress: f64, sites: usize) -> Self {
        match loss {
            LossConfig::ImportanceMinimality(loss) => {
                let constants = Constants { eps: EPS, ..loss.constants(progress) };
                Self::Pooled { sums: vec![Vec::new(); sites], positions: 0.0, constants }
            }
            _ => Self::Mean { sum: 0.0, batches: 0 },
        }
    }

    /// Adds a batch; `index` is what the loss's draws are named by.
    pub(super) fn update<D: Backend>(
        &mut self,
        loss: &LossConfig,
        step: &Step<'_, D>,
        index: usize,
        draws: &mut dyn Draws<D>,
    ) -> DeviceResult<(), D> {
        match self {
            Self::Mean { sum, batches } => {
                *sum += loss.on::<D>().compute(step, index, draws)?.scalar();
                *batches += 1;
            }
            Self::Pooled { sums, positions, constants } => {
                pool(step, *constants, sums)?;
                *positions += step.positions as f64;
            }
        }
        Ok(())
    }

    /// Returns the loss over all batches.
    pub(super) fn value(&self) -> f64 {
        match self {
            Self::Mean { sum, batches } => sum / *batches as f64,
            Self::Pooled { sums, positions, constants } => sums
                .iter()
                .map(|site| value(&site.iter().map(|sum| *sum as f32).collect::<Vec<_>>(), *positions, *constants))
                .sum(),
        }
    }
}

/// Adds the batch's sums of powers, site by site and component by component.
fn pool<D: Backend>(step: &Step<'_, D>, constants: Constants, sums: &mut [Vec<f64>]) -> DeviceResult<(), D> {
    for (importance, sums) in step.importances.iter().zip(sums) {
        let (upper, counts) = (importance.upper.view(), step.row_counts.as_ref().map(Var::view));
        let (_, batch) = step.graph.device().importance_minimality(
            upper,
            counts,
            constants,
            step.positions as f64,
            importance.upper.shape(),
        )?;
        let batch = D::download(&batch);
        sums.resize(batch.len(), 0.0);
        sums.iter_mut().zip(batch).for_each(|(sum, batch)| *sum += f64::from(batch));
    }
    Ok(())
}
