//! Sums and copies over ranks: by the devices among themselves where they are linked, else through the host.
//!
//! What lies on the host goes by messages in any case: the losses of a step and other f64 numbers, which the host needs,
//! and the sums of importance minimality. They are few, their order is fixed, and they make the ranks meet: a device
//! begins to wait for the others only when all have come that far, and a rank that is gone by then is named at once.

use spdflow_engine::ranks::RankError;

use super::backend::{Backend, Buffers, Gradient, GradientBuffer};
use super::graph::DeviceResult;
use crate::collective::{Ranks, Trouble};

/// The connection of a device with those of the other ranks. All of them must ask for the same things in the same order;
/// each call returns when this device has its numbers.
pub trait Link<D: Buffers>: Send + Sync {
    /// Replaces each number by its sum over all ranks, which is the same to the bit on all of them.
    ///
    /// # Errors
    /// [`RankError`] if a rank is missing; then the numbers mean nothing and the link is of no more use.
    fn sum(&self, gradients: &mut [GradientBuffer<D>], trouble: &Trouble<'_>) -> Result<(), RankError>;

    /// Replaces each number by that of rank 0.
    ///
    /// # Errors
    /// As [`Link::sum`].
    fn copy(&self, buffers: &mut [&mut D::Buffer], trouble: &Trouble<'_>) -> Result<(), RankError>;

    /// Ends the connection once every rank has what it asked for.
    ///
    /// # Errors
    /// As [`Link::sum`].
    fn close(&self, trouble: &Trouble<'_>) -> Result<(), RankError>;
}

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

/// Replaces each gradient, and each of `numbers`, by its sum over all ranks: one call for the gradients, whatever their
/// count. Nothing happens in a world of one.
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
    if let Some(link) = device.link() {
        if !numbers.is_empty() {
            ranks.sum(&mut [], numbers);
        }
        ranks.among_devices(|trouble| link.sum(gradients, trouble));
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

/// Replaces what `buffers` hold, and each of `numbers`, by what rank 0 has. Nothing happens in a world of one.
///
/// # Errors
/// The device's. A missing rank is no error here: see [`Ranks::lost`].
pub fn copy_over_ranks<D: Backend>(
    device: &D,
    ranks: &Ranks<'_>,
    buffers: &mut [&mut D::Buffer],
    numbers: &mut [f64],
) -> DeviceResult<(), D> {
    if ranks.is_alone() {
        return Ok(());
    }
    if let Some(link) = device.link() {
        ranks.broadcast(&mut [], numbers);
        ranks.among_devices(|trouble| link.copy(buffers, trouble));
        return Ok(());
    }
    let parts: Vec<Vec<f32>> = buffers.iter().map(|buffer| device.read_buffer(buffer)).collect();
    let mut bucket = parts.concat();
    ranks.broadcast(&mut bucket, numbers);
    let mut rest = &bucket[..];
    for (buffer, part) in buffers.iter_mut().zip(parts) {
        let (copied, more) = rest.split_at(part.len());
        **buffer = device.buffer(copied.to_vec())?;
        rest = more;
    }
    Ok(())
}
