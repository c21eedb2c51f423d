//! The parts of a batch, computed side by side and summed in their order.
//!
//! A step touches every array of activations a dozen times. Those of a whole batch come from memory each time; those of
//! a few hundred rows stay near the core, and threads that work on different rows never wait for each other. Where a
//! batch is cut depends on shapes alone, so the sums have the same bits on any number of threads.

use rayon::prelude::*;
use spdflow_kernels::parallel;

use super::draws::Draws;
use super::loss::{Extent, LossConfig};
use super::model::{ComponentModel, Leaves};
use super::step::{Step, StepSettings};
use crate::bridge::{
    Array, Backend, DeviceResult, GradientBuffer, Graph, Precision, Var, sum_gradients, sum_over_ranks,
};
use crate::collective::Ranks;
use crate::data::Batch;

/// Elements of all sites' component activations in one part, about.
const ELEMENTS: usize = 1 << 17;

/// Returns how many rows a part should have, or `None` if the batch stays whole: the device wants it so, a loss needs
/// all of its rows at once, or much of a step's work is with products of matrices, which every part would repeat.
pub(super) fn shard_width<D: Backend>(model: &ComponentModel<D>, losses: &[LossConfig]) -> Option<usize> {
    let apart = D::COMPUTES_IN_PARTS && losses.iter().all(|loss| loss.extent() != Extent::Batch);
    let multiplies_matrices = model.target().modules().iter().any(|module| module.layer.is_factored());
    let components: usize = model.sites().iter().map(|site| site.plan.components).sum();
    (apart && !multiplies_matrices).then(|| ELEMENTS.div_ceil(components.max(1)))
}

/// Makes the draws of a part of the batch.
pub type DrawsOf<'a, 'b, D> = dyn Fn(&'b Batch) -> Box<dyn Draws<D> + 'b> + Sync + 'a;

/// What a step computes on every part.
pub(super) struct ShardWork<'a, D: Backend> {
    pub(super) device: &'a D,
    pub(super) model: &'a ComponentModel<D>,
    pub(super) losses: &'a [LossConfig],
    pub(super) settings: StepSettings,
    pub(super) precision: Precision,
    /// The parameters.
    pub(super) values: Vec<Array<D>>,
    /// From which lower importance on a component is counted, if they are to be counted.
    pub(super) alive_threshold: Option<f32>,
    /// Who has the other rows of the batch.
    pub(super) ranks: &'a Ranks<'a>,
}

/// What the parts give, summed.
pub(super) struct ShardSums<D: Backend> {
    /// The weighted sum of the losses.
    pub(super) total: f64,
    /// Each loss in the order of the configuration.
    pub(super) losses: Vec<f64>,
    /// The mean number of components alive at each site.
    pub(super) l0: Option<Vec<f64>>,
    /// One for each parameter.
    pub(super) gradients: Vec<GradientBuffer<D>>,
}

impl<D: Backend> ShardWork<'_, D> {
    /// Returns the sums over `parts`, of which there is at least one, of all ranks; each of `notes` is replaced by its
    /// sum too.
    pub(super) fn sums_over_ranks<'b>(
        &self,
        parts: &'b [Batch],
        draws: &DrawsOf<'_, 'b, D>,
        notes: &mut [f64],
    ) -> DeviceResult<ShardSums<D>, D> {
        let mut sums = self.sums(parts, draws)?;
        if !self.ranks.is_alone() {
            sums.reduce(self.device, self.ranks, notes)?;
        }
        Ok(sums)
    }

    /// Returns the sums over `parts`, of which there is at least one.
    pub(super) fn sums<'b>(&self, parts: &'b [Batch], draws: &DrawsOf<'_, 'b, D>) -> DeviceResult<ShardSums<D>, D> {
        let [part] = parts else {
            let sums: Vec<_> = parts
                .par_iter()
                .enumerate()
                .map(|(index, part)| parallel::on_this_thread(|| self.part(part, index == 0, &mut *draws(part))))
                .collect();
            let mut sums = sums.into_iter();
            let mut sum = sums.next().expect("a batch has a part")?;
            for more in sums {
                sum.add(self.device, more?)?;
            }
            return Ok(sum);
        };
        self.part(part, true, &mut *draws(part))
    }

    fn part(&self, part: &Batch, first: bool, draws: &mut dyn Draws<D>) -> DeviceResult<ShardSums<D>, D> {
        let graph = Graph::recording(self.device).with_precision(self.precision);
        let leaves = self.values.iter().map(|value| graph.leaf(value.clone())).collect::<Result<_, _>>()?;
        let leaves = Leaves(leaves);
        let step = Step::new(&graph, self.model, &leaves, part, self.settings, draws)?.among(self.ranks);
        // What depends on the parameters alone is counted once.
        let first = first && self.ranks.rank() == 0;
        let counts = |loss: &LossConfig| first || loss.extent() != Extent::Parameters;
        let (total, losses) = step.total(self.losses, counts, draws)?;
        let l0 = self.alive_threshold.map(|threshold| step.l0(threshold));
        let gradients = graph.gradients(&total, &leaves.0)?;
        Ok(ShardSums { total: total.scalar(), losses, l0, gradients })
    }
}

impl<D: Backend> ShardSums<D> {
    fn add(&mut self, device: &D, other: Self) -> DeviceResult<(), D> {
        let add = |sums: &mut [f64], more: &[f64]| sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        self.total += other.total;
        add(&mut self.losses, &other.losses);
        if let (Some(l0), Some(more)) = (&mut self.l0, &other.l0) {
            add(l0, more);
        }
        self.gradients = sum_gradients(device, std::mem::take(&mut self.gradients), other.gradients)?;
        Ok(())
    }

    /// Adds what the other ranks have, and to `notes` theirs, in one call.
    fn reduce(&mut self, device: &D, ranks: &Ranks<'_>, notes: &mut [f64]) -> DeviceResult<(), D> {
        let l0 = self.l0.iter().flatten();
        let mut numbers: Vec<f64> =
            std::iter::once(&self.total).chain(&self.losses).chain(l0).chain(&*notes).copied().collect();
        sum_over_ranks(device, ranks, &mut self.gradients, &mut numbers)?;
        let l0 = self.l0.iter_mut().flatten();
        let places = std::iter::once(&mut self.total).chain(&mut self.losses).chain(l0).chain(notes);
        places.zip(numbers).for_each(|(place, number)| *place = number);
        Ok(())
    }
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
