//! A tensor's gradient buffer with the tensor's shape erased, so that one list can hold those of all inputs.

use dfdx::prelude::{Gradients, HasErr, Shape, Storage, Tensor};

use super::backend::GradientBuffer;

/// Finds (or allocates, as zeros) a tensor's gradient.
pub(super) type Slot<D> =
    Box<dyn for<'a> Fn(&'a mut Gradients<f32, D>) -> Result<&'a mut GradientBuffer<D>, <D as HasErr>::Err>>;

/// Returns the slot of `tensor`; it keeps the tensor's identity, not its data.
pub(super) fn slot<S: Shape, D: Storage<f32>>(tensor: &Tensor<S, f32, D>) -> Slot<D> {
    let ghost = tensor.ghost();
    Box::new(move |gradients| gradients.get_or_alloc_mut(&ghost))
}
