//! Gradients of several ranks with a GPU each: summed on the host.
//!
//! One bucket goes to the host and back. NCCL would sum it where it is.

use spdflow_kernels::cuda::{Memory, download, upload};

use super::super::graph::DeviceResult;
use super::super::reduction::Reduction;
use super::Gpu;
use crate::collective::Ranks;

impl Reduction for Gpu {
    fn sum_over_ranks(
        &self,
        ranks: &Ranks<'_>,
        gradients: &mut [Memory],
        numbers: &mut [f64],
    ) -> DeviceResult<(), Self> {
        if ranks.is_alone() {
            return Ok(());
        }
        let held: Vec<Vec<f32>> = gradients.iter().map(download).collect::<DeviceResult<_, Self>>()?;
        let mut bucket = held.concat();
        ranks.sum(&mut bucket, numbers);
        let mut rest = &bucket[..];
        for (gradient, held) in gradients.iter_mut().zip(&held) {
            let (summed, more) = rest.split_at(held.len());
            *gradient = upload(&self.handle, summed)?;
            rest = more;
        }
        Ok(())
    }
}
