//! The values of one step and how they depend on each other.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use dfdx::prelude::{Cpu, CpuError, OwnedTape, PutTape, Rank0, Tape, Tensor, ZerosTensor};
use dfdx::tensor_ops::Backward;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backend::{Array, Backend, Buffers, Gradient, GradientBuffer};
use super::factored::{Factored, Memo};
use super::slot::{Gradients, Identity, Shared, Slot};

/// A result whose error is the device's.
pub type DeviceResult<T, D> = Result<T, <D as Buffers>::Err>;

/// A matrix that the step computes with. Cloning is cheap and keeps the identity.
pub struct Var<D: Backend>(Arc<Node<D>>);

enum Node<D: Backend> {
    /// A matrix, and its identity on the tape where a gradient flows.
    Dense(Array<D>, Option<Identity>),
    /// A sum of products that nobody has multiplied out yet.
    Factored(Factored<D>),
}

impl<D: Backend> Clone for Var<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Backend> Var<D> {
    fn constant(array: Array<D>) -> Self {
        Self(Arc::new(Node::Dense(array, None)))
    }

    pub(super) fn factored(factored: Factored<D>) -> Self {
        Self(Arc::new(Node::Factored(factored)))
    }

    /// Returns the sum of products it is, unless it is a matrix.
    pub(super) fn factors(&self) -> Option<&Factored<D>> {
        match &*self.0 {
            Node::Dense(..) => None,
            Node::Factored(factored) => Some(factored),
        }
    }

    fn traced(array: Array<D>) -> Self {
        Self(Arc::new(Node::Dense(array, Some(Identity::fresh()))))
    }

    fn identity(&self) -> Option<Identity> {
        match &*self.0 {
            Node::Dense(_, identity) => *identity,
            Node::Factored(_) => None,
        }
    }

    fn slot(&self) -> Option<Slot> {
        let (features, rows) = self.shape();
        self.identity().map(|identity| Slot { identity, length: features * rows })
    }

    /// Returns `(features, rows)`.
    pub fn shape(&self) -> (usize, usize) {
        match &*self.0 {
            Node::Dense(array, _) => array.shape,
            Node::Factored(factored) => factored.shape(),
        }
    }

    /// Returns read access to the data.
    pub fn view(&self) -> &D::View {
        &self.array().data
    }

    /// Returns the matrix; a sum of products is multiplied out, without a history.
    pub fn array(&self) -> &Array<D> {
        match &*self.0 {
            Node::Dense(array, _) => array,
            Node::Factored(factored) => factored.array(),
        }
    }

    /// Returns whether a gradient flows into this value.
    pub fn is_traced(&self) -> bool {
        match &*self.0 {
            Node::Dense(_, identity) => identity.is_some(),
            Node::Factored(factored) => factored.is_traced(),
        }
    }

    /// Returns whether both are the same value, not merely equal: one node, or products of the same ones.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.factors().zip(other.factors()).is_some_and(|(factors, others)| factors.is_same(others))
    }

    /// Returns a number that no other value has while this one lives.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
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

/// How exactly products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As f32 numbers.
    #[default]
    F32,
    /// From operands rounded to bfloat16, summed in f32.
    Bf16,
}

/// What has been recorded: dfdx's tape, which runs the operations backwards, and the gradients they share.
struct Recording<D: Backend> {
    tape: OwnedTape<f32, Cpu>,
    gradients: Shared<D>,
    /// What ended a backward pass: dfdx's tape knows errors of its own devices only.
    failure: Rc<RefCell<Option<D::Err>>>,
}

impl<D: Backend> Recording<D> {
    fn new(device: &D) -> Self {
        Self { tape: OwnedTape::default(), gradients: Gradients::shared(device), failure: Rc::default() }
    }
}

/// One step's computation. Drop it with the step.
pub struct Graph<D: Backend> {
    device: D,
    recording: Option<RefCell<Recording<D>>>,
    precision: Precision,
    pub(super) memo: RefCell<Memo<D>>,
}

impl<D: Backend> Graph<D> {
    /// Returns a graph that records how values were made, for [`Graph::gradients`].
    pub fn recording(device: &D) -> Self {
        Self {
            device: device.clone(),
            recording: Some(RefCell::new(Recording::new(device))),
            precision: Precision::F32,
            memo: RefCell::default(),
        }
    }

    /// Returns a graph that only computes.
    pub fn detached(device: &D) -> Self {
        Self { device: device.clone(), recording: None, precision: Precision::F32, memo: RefCell::default() }
    }

    /// Returns the graph computing with this precision; it is f32 otherwise.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Returns how exactly products are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Returns the device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Returns a value no gradient flows into.
    pub fn constant(&self, array: Array<D>) -> Var<D> {
        Var::constant(array)
    }

    /// Returns a value no gradient flows into, from host memory, row-major.
    pub fn upload(&self, data: Vec<f32>, shape: (usize, usize)) -> DeviceResult<Var<D>, D> {
        Ok(self.constant(self.device.upload(data, shape)?))
    }

    /// Returns a leaf: a value whose gradient is wanted.
    ///
    /// # Errors
    /// The device's.
    pub fn leaf(&self, array: Array<D>) -> DeviceResult<Var<D>, D> {
        Ok(if self.recording.is_some() { Var::traced(array) } else { Var::constant(array) })
    }

    /// Records one operation: `array` was made from `inputs`.
    ///
    /// `backward` gets the gradient of the output and, for each input that wants one, the gradient to contribute to. An
    /// input may appear only once: both places would ask for the same buffer.
    pub(super) fn push<F>(&self, array: Array<D>, inputs: &[&Var<D>], backward: F) -> DeviceResult<Var<D>, D>
    where
        F: 'static + FnOnce(&D, &GradientBuffer<D>, &mut [Option<Gradient<D>>]) -> DeviceResult<(), D>,
    {
        let traced = inputs.iter().any(|input| input.is_traced());
        let (Some(recording), true) = (&self.recording, traced) else {
            return Ok(Var::constant(array));
        };
        for (position, input) in inputs.iter().enumerate() {
            assert!(input.factors().is_none() || !input.is_traced(), "an operation multiplies its inputs out first");
            let again = inputs[..position].iter().any(|other| input.is_traced() && other.is_same(input));
            assert!(!again, "an operation takes the same traced value twice");
        }
        let out = Var::traced(array);
        let slots: Vec<Option<Slot>> = inputs.iter().map(|input| input.slot()).collect();
        let out_slot = out.slot().expect("a traced value has a gradient");
        let device = self.device.clone();
        let mut recording = recording.borrow_mut();
        let (gradients, failure) = (Rc::clone(&recording.gradients), Rc::clone(&recording.failure));
        let run = move || -> DeviceResult<(), D> {
            // Buffers are moved out while the kernel runs, so that several can be held at once without `unsafe`.
            let grad_out = gradients.borrow_mut().take(out_slot)?;
            let mut buffers: Vec<_> =
                slots.iter().map(|slot| slot.map(|slot| gradients.borrow_mut().lend(slot))).collect();
            backward(&device, &grad_out, &mut buffers)?;
            for (slot, buffer) in slots.iter().zip(buffers) {
                if let (Some(slot), Some(buffer)) = (slot, buffer) {
                    gradients.borrow_mut().put(*slot, buffer);
                }
            }
            // Nobody reads the output's gradient after this.
            D::recycle_gradient(grad_out);
            Ok(())
        };
        recording.tape.add_backward_op(move |_| {
            run().map_err(|error| {
                *failure.borrow_mut() = Some(error);
                CpuError::OutOfMemory
            })
        });
        drop(recording);
        Ok(out)
    }

    /// Returns the gradient of the scalar `loss` with respect to each of `leaves`, zeros where nothing flowed. The graph
    /// forgets what it recorded.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If the graph does not record, or one of `leaves` is no leaf.
    pub fn gradients(&self, loss: &Var<D>, leaves: &[Var<D>]) -> DeviceResult<Vec<GradientBuffer<D>>, D> {
        let recording = self.recording.as_ref().expect("only a recording graph can be differentiated");
        let Recording { tape, gradients, failure } = recording.replace(Recording::new(&self.device));
        assert_eq!(loss.shape(), (1, 1), "only a scalar can be differentiated");
        if let Some(loss) = loss.slot() {
            gradients.borrow_mut().set(loss, self.device.gradient(vec![1.0])?);
            let end: Tensor<Rank0, f32, Cpu> = ZerosTensor::zeros(&Cpu::default());
            if let Err(error) = end.put_tape(tape).try_backward() {
                let failure = failure.take();
                return Err(failure.unwrap_or_else(|| panic!("dfdx's own part of a backward pass failed: {error:?}")));
            }
        }
        let slot = |leaf: &Var<D>| leaf.slot().expect("only a leaf has a gradient");
        leaves.iter().map(|leaf| gradients.borrow_mut().take(slot(leaf))).collect()
    }
}
