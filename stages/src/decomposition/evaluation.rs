//! Measures a decomposition while it trains (spec sections 5.5, 5.6 and 5.9).
//!
//! Evaluation has its own streams of data and draws: how often it runs cannot change the training. Batches are
//! numbered across evaluations, so every one sees fresh data.

use spdflow_engine::kind::StageError;
use spdflow_kernels::importance_minimality::{Constants, value};

use super::config::DecomposeParams;
use super::draws::StreamDraws;
use super::loss::LossConfig;
use super::model::{ComponentModel, Leaves};
use super::probe::probe;
use super::step::{Step, StepSettings};
use crate::artifact::metric_log::MetricLog;
use crate::bridge::{Backend, DeviceResult, Graph, Var};
use crate::data::InputDistribution;
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;
use crate::solution::TargetSolution;

/// What is measured at every evaluation of a run.
pub struct Evaluator {
    /// All losses, those of the training first, each class once.
    losses: Vec<LossConfig>,
    data: InputDistribution,
    solution: Option<TargetSolution>,
    compact: bool,
    seed: u64,
    batches: usize,
    batch_size: usize,
    alive_threshold: f64,
    settings: StepSettings,
}

/// A loss summed over the batches of an evaluation.
enum Accumulator {
    /// Batches have equal sizes, so the mean of means is the mean.
    Mean { sum: f64, batches: usize },
    /// Importance minimality pools its sums over all batches before the logarithm, as the reference's metric does.
    Pooled { sums: Vec<Vec<f64>>, positions: f64, constants: Constants },
}

impl Evaluator {
    /// Returns the evaluator for a run with these parameters; `compact` says whether all-zero rows may be counted.
    #[must_use]
    pub fn new(params: &DecomposeParams, data: &InputDistribution, settings: StepSettings, compact: bool) -> Self {
        let mut losses = params.losses.clone();
        for loss in &params.evaluation.losses {
            match losses.iter_mut().find(|other| other.class() == loss.class()) {
                Some(other) => *other = loss.clone(),
                None => losses.push(loss.clone()),
            }
        }
        Self {
            losses,
            data: data.clone(),
            solution: TargetSolution::new(&params.evaluation.identity, &params.evaluation.dense),
            compact,
            seed: params.seed,
            batches: params.evaluation.batches,
            batch_size: params.evaluation.batch_size.unwrap_or(params.batch_size),
            alive_threshold: params.evaluation.alive_threshold,
            settings,
        }
    }

    /// Measures the model as it is after `step` updates; `number` counts evaluations from 0.
    ///
    /// # Errors
    /// [`StageError::Failed`] if memory runs out or the expected solution does not fit the model.
    pub fn evaluate<D: Backend>(
        &self,
        device: &D,
        model: &ComponentModel<D>,
        parameters: &Parameters<D>,
        (step, number): (u64, u64),
        progress: f64,
        log: &mut MetricLog,
    ) -> Result<(), StageError> {
        let failed = |error: D::Err| StageError::failed(format!("evaluation: {error:?}"));
        self.measure_losses(device, model, parameters, (step, number), progress, log).map_err(failed)?;
        if let Some(solution) = &self.solution {
            let Some(n_features) = self.data.n_features() else {
                return Err(StageError::failed_with_hint(
                    "`evaluation.identity` and `evaluation.dense` expect a target that reads vectors, found one that reads tokens",
                    "leave them out: there is no feature to probe one at a time",
                ));
            };
            let probes = probe(device, model, parameters, n_features).map_err(failed)?;
            let sites = probes.iter().map(|probe| (&probe.site[..], &probe.lower));
            let error = solution
                .error(sites)
                .map_err(|(site, error)| StageError::failed(format!("expected solution of site `{site}`: {error}")))?;
            for (name, value) in error.metrics() {
                log.push(step, format!("eval/{name}"), value);
            }
        }
        Ok(())
    }

    fn measure_losses<D: Backend>(
        &self,
        device: &D,
        model: &ComponentModel<D>,
        parameters: &Parameters<D>,
        (step, number): (u64, u64),
        progress: f64,
        log: &mut MetricLog,
    ) -> DeviceResult<(), D> {
        let settings = StepSettings { progress, ..self.settings };
        let mut accumulators: Vec<Accumulator> =
            self.losses.iter().map(|loss| Accumulator::new(loss, progress, model.sites().len())).collect();
        let mut l0 = vec![0.0; model.sites().len()];
        for batch in 0..self.batches {
            let index =
                u32::try_from(number * self.batches as u64 + batch as u64).expect("fewer than 2^32 evaluation batches");
            let stream = Purpose::EvaluationData.stream(self.seed, index, 0);
            let batch = match self.compact {
                true => self.data.compact_batch(stream, self.batch_size),
                false => self.data.batch(stream, self.batch_size),
            };
            let graph = Graph::detached(device);
            let leaves = Leaves(parameters.leaves(&graph)?);
            let mut draws = StreamDraws { seed: self.seed, step: index, evaluation: true, rows: &batch.rows };
            let current = Step::new(&graph, model, &leaves, &batch, settings, &mut draws)?;
            for (position, (loss, accumulator)) in self.losses.iter().zip(&mut accumulators).enumerate() {
                match accumulator {
                    Accumulator::Mean { sum, batches } => {
                        *sum += loss.on::<D>().compute(&current, position, &mut draws)?.scalar();
                        *batches += 1;
                    }
                    Accumulator::Pooled { sums, positions, constants } => {
                        pool(&current, *constants, sums)?;
                        *positions += current.positions as f64;
                    }
                }
            }
            for (total, l0) in l0.iter_mut().zip(current.l0(self.alive_threshold as f32)) {
                *total += l0;
            }
        }
        for (loss, accumulator) in self.losses.iter().zip(&accumulators) {
            log.push(step, format!("eval/loss/{}", loss.class()), accumulator.value());
        }
        for (site, l0) in model.sites().iter().zip(&l0) {
            log.push(step, format!("eval/l0/{:?}_{}", self.alive_threshold, site.plan.name), l0 / self.batches as f64);
        }
        Ok(())
    }
}

impl Accumulator {
    fn new(loss: &LossConfig, progress: f64, sites: usize) -> Self {
        match loss {
            LossConfig::ImportanceMinimality(loss) => {
                Self::Pooled { sums: vec![Vec::new(); sites], positions: 0.0, constants: loss.constants(progress) }
            }
            _ => Self::Mean { sum: 0.0, batches: 0 },
        }
    }

    fn value(&self) -> f64 {
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
