//! The place of a value's gradient.
//!
//! On the tape a value is known by a dfdx tensor of one element: dfdx keys gradients by a tensor's identity and gives
//! them its length, and a tensor of the value's own length would need a second copy of the data. The buffer gets the
//! value's length when the first gradient arrives.

use dfdx::prelude::{Gradients, Rank0, Storage, Tensor};

use super::backend::{Backend, Gradient, GradientBuffer};
use super::graph::DeviceResult;

/// A value's identity on the tape.
pub(super) type Identity<D> = Tensor<Rank0, f32, D>;

/// Finds a value's gradient.
pub(super) struct Slot<D: Backend> {
    device: D,
    identity: Identity<D>,
    length: usize,
}

impl<D: Backend> Slot<D> {
    /// Returns the slot of the value of `length` elements that is known as `identity`.
    pub(super) fn new(device: &D, identity: &Identity<D>, length: usize) -> Self {
        Self { device: device.clone(), identity: identity.clone(), length }
    }

    /// Returns the gradient, zeros if nothing has flowed into it yet.
    pub(super) fn find<'a>(&self, gradients: &'a mut Gradients<f32, D>) -> DeviceResult<&'a mut GradientBuffer<D>, D> {
        let gradient = gradients.get_or_alloc_mut(&self.identity)?;
        if Storage::<f32>::len(&self.device, gradient) != self.length {
            self.device.clear_gradient(gradient, self.length)?;
        }
        Ok(gradient)
    }

    /// Moves the gradient out.
    pub(super) fn take(&self, gradients: &mut Gradients<f32, D>) -> DeviceResult<GradientBuffer<D>, D> {
        let empty = Storage::<f32>::try_alloc_len(&self.device, 0)?;
        Ok(std::mem::replace(self.find(gradients)?, empty))
    }

    /// Moves the gradient out for an operation to contribute to.
    pub(super) fn lend(&self, gradients: &mut Gradients<f32, D>) -> DeviceResult<Gradient<D>, D> {
        let empty = Storage::<f32>::try_alloc_len(&self.device, 0)?;
        let memory = std::mem::replace(gradients.get_or_alloc_mut(&self.identity)?, empty);
        let fresh = Storage::<f32>::len(&self.device, &memory) != self.length;
        Ok(Gradient { memory, length: self.length, fresh })
    }

    /// Takes back a gradient that was lent.
    pub(super) fn put(&self, gradients: &mut Gradients<f32, D>, gradient: Gradient<D>) -> DeviceResult<(), D> {
        *gradients.get_or_alloc_mut(&self.identity)? = gradient.memory;
        Ok(())
    }
}
