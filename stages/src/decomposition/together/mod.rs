//! A decomposition by several ranks: each has a share of every batch, and all have the same parameters.
//!
//! Rank 0 is the run: it alone evaluates, records and saves. The parameters and their moments are copied from it at the
//! start, then every rank makes every update with the same summed gradients. With the sums of a step go notes: who
//! wants to stop, so that all stop at the same step, and on logged steps digests of the parameters, so that ranks that
//! drift apart are found out.

#[cfg(all(test, feature = "nccl"))]
mod on_gpus;
#[cfg(test)]
pub(in crate::decomposition) mod tests;

use std::time::{Duration, Instant};

use spdflow_engine::cache::Digest;
use spdflow_engine::kind::{StageContext, StageError};
use spdflow_engine::ranks::RankError;

use crate::bridge::{Backend, copy_over_ranks};
use crate::collective::Ranks;
use crate::data::{Batch, InputDistribution};
use crate::decomposition::config::DecomposeParams;
use crate::optimizer::parameters::Parameters;

/// A signal to all ranks reaches them one after the other.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Returns whether this rank is asked to stop, now or in a moment.
fn is_asked_soon(context: &StageContext<'_>) -> bool {
    let begin = Instant::now();
    while !context.should_stop() && begin.elapsed() < SAME_WISH {
        std::thread::sleep(Duration::from_millis(5));
    }
    context.should_stop()
}

/// The ranks of a decomposition, seen from one of them.
pub(super) struct Together<'a> {
    /// The ranks.
    pub(super) ranks: Ranks<'a>,
    /// Who wanted to stop when the last step was made.
    stop: Option<usize>,
}

impl<'a> Together<'a> {
    pub(super) fn new(context: &StageContext<'a>) -> Self {
        Self { ranks: Ranks::of(context.world), stop: None }
    }

    /// Returns whether this rank is the run, which evaluates, records and saves.
    pub(super) fn leads(&self) -> bool {
        self.ranks.rank() == 0
    }

    /// Refuses a batch that has not enough rows for all ranks.
    pub(super) fn check_batch(&self, params: &DecomposeParams, data: &InputDistribution) -> Result<(), StageError> {
        let (rows, ranks) = (params.batch_size, self.ranks.size());
        if rows >= ranks {
            return Ok(());
        }
        let what = match data {
            InputDistribution::SparseFeatures(_) => "rows",
            InputDistribution::InductionSequences(_) => "sequences",
        };
        Err(StageError::failed_with_hint(
            format!("`batch_size`: a batch of {rows} {what} cannot be divided among {ranks} ranks"),
            format!("start at most {rows} processes, or raise `batch_size`"),
        ))
    }

    /// Returns `device` linked with those of the other ranks, where they can sum among themselves.
    pub(super) fn linked<D: Backend>(&self, device: &D, context: &StageContext<'_>) -> Result<D, StageError> {
        let tell = |line: &str| context.progress.log(line);
        device.linked(context.world, &tell).map_err(|error| missing(&error, BEGIN))
    }

    /// Gives every rank the parameters of rank 0 and the step it begins with.
    pub(super) fn begin<D: Backend>(
        &self,
        device: &D,
        parameters: &mut Parameters<D>,
        first: &mut u64,
    ) -> Result<(), StageError> {
        if self.ranks.is_alone() {
            return Ok(());
        }
        let copy = |buffers: &mut [&mut D::Buffer], updates: u64| {
            // Both are far below 2^53.
            let mut numbers = [*first as f64, updates as f64];
            copy_over_ranks(device, &self.ranks, buffers, &mut numbers)?;
            let [step, updates] = numbers.map(|number| number as u64);
            *first = step;
            Ok(updates)
        };
        parameters.replace(copy).map_err(|error: D::Err| StageError::failed(format!("{error:?}")))?;
        self.check(BEGIN)
    }

    /// Ends what links `device` with those of the other ranks, after the last step.
    pub(super) fn end<D: Backend>(&self, device: &D) {
        if let Some(link) = device.link() {
            // A rank that is gone by now has done its share.
            self.ranks.among_devices(|trouble| link.close(trouble));
        }
    }

    /// Returns this rank's share of a batch.
    pub(super) fn share(&self, batch: Batch) -> Batch {
        if self.ranks.is_alone() { batch } else { batch.share(self.ranks.rank(), self.ranks.size()) }
    }

    /// Returns whether to save the state and stop before the next step.
    pub(super) fn should_stop(&self, context: &StageContext<'_>) -> bool {
        if self.ranks.is_alone() { context.should_stop() } else { self.stop.is_some() }
    }

    /// Returns the error with which a stage ends that was asked to stop.
    pub(super) fn stopped(&self, context: &StageContext<'_>, step: u64) -> StageError {
        match self.stop {
            // The run itself was not asked, so it would not know what to do with an interruption.
            Some(rank) if rank > 0 && self.leads() && !is_asked_soon(context) => StageError::failed_with_hint(
                format!("rank {rank} of {} was asked to stop before step {step}", self.ranks.size()),
                "run it again: it goes on from that step",
            ),
            _ => StageError::Interrupted,
        }
    }

    /// Returns the notes of this rank for a step: for each rank whether it wants to stop and, if `is_logged`, two halves
    /// of a digest of its parameters.
    pub(super) fn notes<D: Backend>(
        &self,
        context: &StageContext<'_>,
        parameters: &Parameters<D>,
        is_logged: bool,
    ) -> Vec<f64> {
        if self.ranks.is_alone() {
            return Vec::new();
        }
        let (rank, size) = (self.ranks.rank(), self.ranks.size());
        let mut notes = vec![0.0; size * if is_logged { 3 } else { 1 }];
        notes[rank] = f64::from(u8::from(context.should_stop()));
        if is_logged {
            let bytes: Vec<u8> =
                parameters.state().iter().flat_map(|(_, tensor)| &tensor.data).flat_map(|x| x.to_le_bytes()).collect();
            let digest = Digest::of(&bytes);
            let halves = digest.as_bytes()[..8].as_chunks::<4>().0;
            // 32 bits survive in an f64, also after others' zeros are added.
            notes[size + 2 * rank] = f64::from(u32::from_le_bytes(halves[0]));
            notes[size + 2 * rank + 1] = f64::from(u32::from_le_bytes(halves[1]));
        }
        notes
    }

    /// Reads the summed notes of `step`.
    pub(super) fn heed(&mut self, notes: &[f64], step: u64) -> Result<(), StageError> {
        let size = self.ranks.size();
        if self.ranks.is_alone() {
            return Ok(());
        }
        let (stops, digests) = notes.split_at(size);
        self.stop = stops.iter().position(|wish| *wish > 0.0);
        let digests = digests.as_chunks::<2>().0;
        match digests.iter().position(|digest| *digest != digests[0]) {
            None => Ok(()),
            Some(rank) => Err(StageError::failed_with_hint(
                format!("the parameters of rank {rank} of {size} are no longer those of rank 0 at step {step}"),
                "all ranks need the same program and the same kind of processor",
            )),
        }
    }

    /// Returns an error if a rank was lost, `when` the present step was made.
    pub(super) fn check(&self, when: &str) -> Result<(), StageError> {
        self.ranks.lost().map_or(Ok(()), |error| Err(missing(error, when)))
    }
}

/// When the ranks have not begun to work.
const BEGIN: &str = "before the first step";

fn missing(error: &RankError, when: &str) -> StageError {
    StageError::failed_with_hint(
        format!("{error} {when}"),
        "start all ranks again: the stage goes on from its last step",
    )
}
