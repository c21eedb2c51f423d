//! Sums of gradients that were computed apart.

use super::backend::{Backend, Gradient, GradientBuffer};
use super::graph::DeviceResult;
use crate::collective::Ranks;

/// Returns `sums + more`, gradient by gradient, in the memory of `sums`.
///
/// # Errors
/// The device's.
pub fn sum_gradients<D: Backend>(
    device: &D,
    sums: Vec<GradientBuffer<D>>,
    more: Vec<GradientBuffer<D>>,
) -> DeviceResult<Vec<GradientBuffer<D>>, D> {
    let sum = |(gradient, more)| {
        let mut sum = Gradient::of(device, gradient);
        device.add_backward(&more, &mut sum)?;
        D::recycle_gradient(more);
        sum.into_memory()
    };
    sums.into_iter().zip(more).map(sum).collect()
}

/// Replaces each gradient, and each of `numbers`, by its sum over all ranks: one call, whatever their count. Nothing
/// happens in a world of one.
///
/// The sum is made on the host.
///
/// # Errors
/// The device's. A missing rank is no error here: see [`Ranks::lost`].
pub fn sum_over_ranks<D: Backend>(
    device: &D,
    ranks: &Ranks<'_>,
    gradients: &mut [GradientBuffer<D>],
    numbers: &mut [f64],
) -> DeviceResult<(), D> {
    if ranks.is_alone() {
        return Ok(());
    }
    let mut bucket: Vec<f32> = gradients.iter().flat_map(D::read_gradient).collect();
    ranks.sum(&mut bucket, numbers);
    let mut rest = &bucket[..];
    for gradient in gradients {
        let (summed, more) = rest.split_at(D::length(gradient));
        D::recycle_gradient(std::mem::replace(gradient, device.gradient(summed.to_vec())?));
        rest = more;
    }
    Ok(())
}
