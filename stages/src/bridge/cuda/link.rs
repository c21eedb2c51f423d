//! GPUs of several ranks that sum among themselves, by NCCL.
//!
//! What is asked for goes in one flat bucket, so that a step is one call whatever the number of parameters. Who waits
//! for others looks after them meanwhile: the connections of the ranks tell within a moment who is gone.

use std::cell::RefCell;
use std::ops::Range;
use std::time::{Duration, Instant};

use cudarc::driver::DeviceSlice;
use spdflow_engine::ranks::RankError;
use spdflow_kernels::cuda::nccl::{Communicator, NcclError, UniqueId, Watch};
use spdflow_kernels::cuda::{Handle, Launched, Memory, copy_into_span, copy_span, memory};

use super::super::link::Link;
use super::Gpu;
use crate::collective::Trouble;

/// A rank that ends right after its part leaves the others' devices no more to wait for than this.
const GRACE: Duration = Duration::from_secs(1);

/// This rank's end of the connection.
pub struct NcclLink {
    communicator: Communicator,
    device: Handle,
    rank: usize,
    size: usize,
}

impl NcclLink {
    /// Connects the GPU of rank `rank` with those of the other ranks.
    pub(super) fn connect(
        device: &Handle,
        id: &UniqueId,
        (rank, size): (usize, usize),
        trouble: &Trouble<'_>,
    ) -> Result<Self, RankError> {
        let connect = |watch: &Watch<'_>| Communicator::connect(device, id, rank, size, watch);
        let communicator = watched((rank, size), trouble, connect)?;
        Ok(Self { communicator, device: device.clone(), rank, size })
    }

    /// Does `act` with a bucket of what `parts` hold, and gives each its part of the result.
    fn in_a_bucket(
        &self,
        parts: &mut [&mut Memory],
        trouble: &Trouble<'_>,
        act: impl FnOnce(&mut Memory, &Watch<'_>) -> Result<(), NcclError>,
    ) -> Result<(), RankError> {
        watched((self.rank, self.size), trouble, |watch| {
            let length = parts.iter().map(|part| part.len()).sum();
            let mut bucket = memory(&self.device, length)?;
            each(parts, |part, span| copy_into_span(part, &mut bucket, span))?;
            act(&mut bucket, watch)?;
            each(parts, |part, span| copy_span(&bucket, span, part))?;
            Ok(())
        })
    }
}

/// Calls `act` with each part and where it lies in the bucket.
fn each(parts: &mut [&mut Memory], mut act: impl FnMut(&mut Memory, Range<usize>) -> Launched) -> Launched {
    let mut begin = 0;
    for part in parts {
        let end = begin + part.len();
        act(part, begin..end)?;
        begin = end;
    }
    Ok(())
}

impl Link<Gpu> for NcclLink {
    fn sum(&self, gradients: &mut [Memory], trouble: &Trouble<'_>) -> Result<(), RankError> {
        let mut parts: Vec<&mut Memory> = gradients.iter_mut().collect();
        self.in_a_bucket(&mut parts, trouble, |bucket, watch| self.communicator.sum(bucket, watch))
    }

    fn copy(&self, buffers: &mut [&mut Memory], trouble: &Trouble<'_>) -> Result<(), RankError> {
        self.in_a_bucket(buffers, trouble, |bucket, watch| self.communicator.copy_from_first(bucket, watch))
    }

    fn close(&self, trouble: &Trouble<'_>) -> Result<(), RankError> {
        watched((self.rank, self.size), trouble, |watch| self.communicator.close(watch))
    }
}

/// Does what needs all ranks, and gives up when `trouble` names one that is missing: after a moment, because it may have
/// ended when it had done its part. An error names that rank too, or else this one.
fn watched<T>(
    (rank, size): (usize, usize),
    trouble: &Trouble<'_>,
    act: impl FnOnce(&Watch<'_>) -> Result<T, NcclError>,
) -> Result<T, RankError> {
    let missing: RefCell<Option<(RankError, Instant)>> = RefCell::new(None);
    let goes_on = || {
        let mut missing = missing.borrow_mut();
        if missing.is_none() {
            *missing = trouble().map(|error| (error, Instant::now()));
        }
        missing.as_ref().is_none_or(|(_, since)| since.elapsed() < GRACE)
    };
    act(&goes_on).map_err(|error| {
        // NCCL may notice before the connection does.
        let begin = Instant::now();
        while missing.borrow().is_none() && goes_on() && begin.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let culprit = missing.take().map(|(error, _)| error);
        culprit.unwrap_or_else(|| RankError::Failed { rank, size, message: error.to_string() })
    })
}
