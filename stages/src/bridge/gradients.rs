//! Sums of gradients that were computed apart.

use super::backend::{Backend, Gradient, GradientBuffer};
use super::graph::DeviceResult;

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
