//! The values of one step and how they depend on each other.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use dfdx::prelude::{Axes2, Gradients, HasErr, OwnedTape, PutTape, Rank0, Storage, SumTo, Tape};
use dfdx::tensor_ops::Backward;

use super::backend::{Array, Backend, GradientBuffer};
use super::slot::{Slot, slot};

/// A result whose error is the device's.
pub type DeviceResult<T, D> = Result<T, <D as HasErr>::Err>;

/// A matrix that the step computes with. Cloning is cheap and keeps the identity.
pub struct Var<D: Backend>(Rc<Node<D>>);

struct Node<D: Backend> {
    array: Array<D>,
    view: OnceCell<D::View>,
    traced: bool,
}

impl<D: Backend> Clone for Var<D> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<D: Backend> Var<D> {
    fn new(array: Array<D>, traced: bool) -> Self {
        Self(Rc::new(Node { array, view: OnceCell::new(), traced }))
    }

    /// Returns `(features, rows)`.
    pub fn shape(&self) -> (usize, usize) {
        use dfdx::prelude::HasShape;
        *self.0.array.shape()
    }

    /// Returns read access to the data; the same view every time.
    pub fn view(&self) -> &D::View {
        self.0.view.get_or_init(|| D::view(&self.0.array))
    }

    /// Returns the tensor.
    pub fn array(&self) -> &Array<D> {
        &self.0.array
    }

    /// Returns whether a gradient flows into this value.
    pub fn is_traced(&self) -> bool {
        self.0.traced
    }

    /// Returns whether both are the same value, not merely equal.
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the data, row-major.
    pub fn to_vec(&self) -> Vec<f32> {
        D::download(self.view())
    }

    /// Returns the value of a `(1, 1)` matrix.
    pub fn scalar(&self) -> f64 {
        assert_eq!(self.shape(), (1, 1), "only a scalar has one value");
        f64::from(self.to_vec()[0])
    }
}

/// One step's computation. Drop it with the step.
pub struct Graph<D: Backend> {
    device: D,
    tape: Option<RefCell<OwnedTape<f32, D>>>,
}

impl<D: Backend> Graph<D> {
    /// Returns a graph that records how values were made, for [`Graph::backward`].
    pub fn recording(device: &D) -> Self {
        Self { device: device.clone(), tape: Some(RefCell::default()) }
    }

    /// Returns a graph that only computes.
    pub fn detached(device: &D) -> Self {
        Self { device: device.clone(), tape: None }
    }

    /// Returns the device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Returns a value no gradient flows into.
    pub fn constant(&self, array: Array<D>) -> Var<D> {
        Var::new(array, false)
    }

    /// Returns a value no gradient flows into, from host memory, row-major.
    pub fn upload(&self, data: Vec<f32>, shape: (usize, usize)) -> DeviceResult<Var<D>, D> {
        Ok(self.constant(self.device.upload(data, shape)?))
    }

    /// Returns a leaf: a value whose gradient is wanted.
    pub fn leaf(&self, array: Array<D>) -> Var<D> {
        Var::new(array, self.tape.is_some())
    }

    /// Returns the same value cut from its history.
    pub fn detach(&self, value: &Var<D>) -> Var<D> {
        if value.is_traced() { Var::new(value.0.array.clone(), false) } else { value.clone() }
    }

    /// Records one operation: `array` was made from `inputs`.
    ///
    /// `backward` gets the gradient of the output and, for each input that wants one, the buffer to add to. An input
    /// may appear only once: both places would ask for the same buffer.
    pub(super) fn push<F>(&self, array: Array<D>, inputs: &[&Var<D>], backward: F) -> Var<D>
    where
        F: 'static + FnOnce(&D, &GradientBuffer<D>, &mut [Option<GradientBuffer<D>>]) -> DeviceResult<(), D>,
    {
        let traced = inputs.iter().any(|input| input.is_traced());
        let (Some(tape), true) = (&self.tape, traced) else {
            return Var::new(array, false);
        };
        for (position, input) in inputs.iter().enumerate() {
            let again = inputs[..position].iter().any(|other| input.is_traced() && other.is_same(input));
            assert!(!again, "an operation takes the same traced value twice");
        }
        let slots: Vec<Option<Slot<D>>> =
            inputs.iter().map(|input| input.is_traced().then(|| slot(&input.0.array))).collect();
        let out_slot = slot(&array);
        let device = self.device.clone();
        tape.borrow_mut().add_backward_op(move |gradients: &mut Gradients<f32, D>| {
            // Buffers are moved out while the kernel runs, so that several can be held at once without `unsafe`.
            let take = |slot: &Slot<D>, gradients: &mut Gradients<f32, D>| -> DeviceResult<GradientBuffer<D>, D> {
                let empty = Storage::<f32>::try_alloc_len(&device, 0)?;
                Ok(std::mem::replace(slot(gradients)?, empty))
            };
            // Nobody reads the output's gradient after this, so it is not put back and its memory is free again.
            let grad_out = take(&out_slot, gradients)?;
            let mut buffers = Vec::with_capacity(slots.len());
            for slot in &slots {
                buffers.push(slot.as_ref().map(|slot| take(slot, gradients)).transpose()?);
            }
            backward(&device, &grad_out, &mut buffers)?;
            for (slot, buffer) in slots.iter().zip(buffers) {
                if let (Some(slot), Some(buffer)) = (slot, buffer) {
                    *slot(gradients)? = buffer;
                }
            }
            Ok(())
        });
        Var::new(array, true)
    }

    /// Returns the gradients of the scalar `loss` with respect to everything recorded.
    ///
    /// # Panics
    /// If the graph does not record.
    pub fn backward(&self, loss: &Var<D>) -> DeviceResult<Gradients<f32, D>, D> {
        let tape = self.tape.as_ref().expect("only a recording graph can be differentiated").take();
        loss.0.array.clone().put_tape(tape).try_sum::<Rank0, Axes2<0, 1>>()?.try_backward()
    }

    /// Returns the gradient of `leaf` in `gradients`, zeros if nothing flowed into it.
    pub fn gradient<'a>(
        &self,
        gradients: &'a mut Gradients<f32, D>,
        leaf: &Var<D>,
    ) -> DeviceResult<&'a mut GradientBuffer<D>, D> {
        gradients.get_or_alloc_mut(&leaf.0.array)
    }
}
