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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use spdflow_engine::ranks::{Channels, World, in_process};
    use spdflow_kernels::cuda::{download, nccl, upload};

    use super::super::accord::{Accord, Offer, agree};
    use super::super::on_gpu;
    use super::*;
    use crate::testing::only_linked_world;

    /// Longer than it takes to notice that a rank is gone, on a machine that does other things too.
    const SOON: Duration = Duration::from_secs(10);

    /// Runs two ranks with a GPU each.
    fn pair(rank: impl Fn(&Gpu, Channels) + Sync) {
        let _alone = only_linked_world();
        let one = |world: Channels| {
            on_gpu(world.rank(), |gpu| rank(gpu, world)).expect("two GPUs, or SPDFLOW_EMULATOR_DEVICES=2");
        };
        std::thread::scope(|scope| {
            for world in in_process(2) {
                scope.spawn(|| one(world));
            }
        });
    }

    fn id(world: &Channels) -> UniqueId {
        let offer = Offer { gpu: world.rank().to_string(), nccl: Ok(String::new()) };
        let accord = agree(world, offer, || Ok(nccl::unique_id().expect("NCCL").to_vec())).expect("both are there");
        let Accord::Nccl(id) = accord else { panic!("{accord:?}") };
        id.try_into().expect("128 bytes")
    }

    fn connect(gpu: &Gpu, world: &Channels, id: &UniqueId) -> Result<NcclLink, RankError> {
        NcclLink::connect(&gpu.handle, id, (world.rank(), 2), &|| world.trouble())
    }

    #[test]
    fn arrays_of_any_length_are_summed_and_copied() {
        pair(|gpu, world| {
            let (link, ours) = (connect(gpu, &world, &id(&world)).expect("both come"), world.rank() as f32);
            let mut parts: Vec<Memory> =
                [1, 0, 1000].iter().map(|length| upload(&gpu.handle, &vec![ours + 0.5; *length]).unwrap()).collect();
            let trouble = || world.trouble();
            link.sum(&mut parts, &trouble).expect("both come");
            // 0.5 + 1.5.
            assert_eq!(parts.iter().map(|part| download(part).unwrap()).collect::<Vec<_>>().concat(), vec![2.0; 1001]);
            link.sum(&mut [], &trouble).expect("both come");
            let mut mine = upload(&gpu.handle, &[ours, 7.0 - ours]).unwrap();
            link.copy(&mut [&mut mine], &trouble).expect("both come");
            assert_eq!(download(&mine).unwrap(), [0.0, 7.0]);
            link.close(&trouble).expect("both come");
            assert!(link.sum(&mut parts, &trouble).is_err(), "it is closed");
        });
    }

    #[test]
    fn whoever_waits_on_the_device_for_a_rank_that_dies_is_freed() {
        let about_to = Barrier::new(2);
        pair(|gpu, world| {
            let link = connect(gpu, &world, &id(&world)).expect("both come");
            about_to.wait();
            if world.rank() == 1 {
                // Rank 0 is in the middle of it by then.
                std::thread::sleep(Duration::from_millis(200));
                std::mem::forget(link);
                return;
            }
            let (begin, mut gradient) = (Instant::now(), [upload(&gpu.handle, &[1.0]).unwrap()]);
            let error = link.sum(&mut gradient, &|| world.trouble()).unwrap_err();
            assert_eq!(error.to_string(), "rank 1 of 2 is gone (its thread ended)");
            assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
            // The device goes on, so the state can be saved.
            assert_eq!(download(&upload(&gpu.handle, &[3.0]).unwrap()).unwrap(), [3.0]);
            assert!(link.sum(&mut gradient, &|| None).is_err(), "it cannot be used any more");
        });
    }

    #[test]
    fn a_rank_that_dies_before_it_is_connected_is_missed() {
        pair(|gpu, world| {
            let id = id(&world);
            if world.rank() == 1 {
                return;
            }
            let begin = Instant::now();
            let error = connect(gpu, &world, &id).err().expect("nobody comes");
            assert_eq!(error.to_string(), "rank 1 of 2 is gone (its thread ended)");
            assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
        });
    }

    #[test]
    fn what_nccl_refuses_is_said_in_its_words() {
        let both_know = Barrier::new(2);
        pair(|_, world| {
            let same = |gpu: &Gpu| connect(gpu, &world, &id(&world)).err().expect("one GPU for both").to_string();
            let error = on_gpu(0, same).expect("a GPU");
            // Whoever ended first would be missed instead.
            both_know.wait();
            assert!(error.contains("NCCL fails (ncclCommInitRank: ") && error.contains("Duplicate GPU"), "{error}");
        });
    }
}
