//! Gradients summed over the ranks that compute a step together.

use dfdx::prelude::Cpu;

use super::backend::{Buffers, GradientBuffer};
use super::graph::DeviceResult;
use crate::collective::Ranks;

/// What a device does with the gradients of several ranks.
pub trait Reduction: Buffers {
    /// Replaces each gradient, and each of `numbers`, by its sum over all ranks: one call, whatever their count. Nothing
    /// happens in a world of one.
    ///
    /// # Errors
    /// The device's. A missing rank is no error here: see [`Ranks::lost`].
    fn sum_over_ranks(
        &self,
        ranks: &Ranks<'_>,
        gradients: &mut [GradientBuffer<Self>],
        numbers: &mut [f64],
    ) -> DeviceResult<(), Self>;
}

impl Reduction for Cpu {
    fn sum_over_ranks(
        &self,
        ranks: &Ranks<'_>,
        gradients: &mut [GradientBuffer<Self>],
        numbers: &mut [f64],
    ) -> DeviceResult<(), Self> {
        if ranks.is_alone() {
            return Ok(());
        }
        let mut bucket = Vec::with_capacity(gradients.iter().map(|gradient| gradient.len()).sum());
        gradients.iter().for_each(|gradient| bucket.extend_from_slice(gradient));
        ranks.sum(&mut bucket, numbers);
        let mut rest = &bucket[..];
        for gradient in gradients {
            let (summed, more) = rest.split_at(gradient.len());
            gradient.copy_from_slice(summed);
            rest = more;
        }
        Ok(())
    }
}
