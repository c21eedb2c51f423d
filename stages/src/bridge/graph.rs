//! The values of one step and how they depend on each other.

use std::cell::RefCell;
use std::sync::Arc;

use dfdx::prelude::{Gradients, HasErr, OwnedTape, PutTape, Tape};
use dfdx::tensor_ops::Backward;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backend::{Array, Backend, Gradient, GradientBuffer};
use super::factored::{Factored, Memo};
use super::slot::{Identity, Slot};

/// A result whose error is the device's.
pub type DeviceResult<T, D> = Result<T, <D as HasErr>::Err>;

/// A matrix that the step computes with. Cloning is cheap and keeps the identity.
pub struct Var<D: Backend>(Arc<Node<D>>);

enum Node<D: Backend> {
    /// A matrix, and its identity on the tape where a gradient flows.
    Dense(Array<D>, Option<Identity<D>>),
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

    fn traced(device: &D, array: Array<D>) -> DeviceResult<Self, D> {
        let identity = Some(device.try_zeros()?);
        Ok(Self(Arc::new(Node::Dense(array, identity))))
    }

    fn identity(&self) -> Option<&Identity<D>> {
        match &*self.0 {
            Node::Dense(_, identity) => identity.as_ref(),
            Node::Factored(_) => None,
        }
    }

    fn slot(&self, device: &D) -> Option<Slot<D>> {
        let (features, rows) = self.shape();
        self.identity().map(|identity| Slot::new(device, identity, features * rows))
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

/// One step's computation. Drop it with the step.
pub struct Graph<D: Backend> {
    device: D,
    tape: Option<RefCell<OwnedTape<f32, D>>>,
    precision: Precision,
    pub(super) memo: RefCell<Memo<D>>,
}

impl<D: Backend> Graph<D> {
    /// Returns a graph that records how values were made, for [`Graph::gradients`].
    pub fn recording(device: &D) -> Self {
        Self {
            device: device.clone(),
            tape: Some(RefCell::default()),
            precision: Precision::F32,
            memo: RefCell::default(),
        }
    }

    /// Returns a graph that only computes.
    pub fn detached(device: &D) -> Self {
        Self { device: device.clone(), tape: None, precision: Precision::F32, memo: RefCell::default() }
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
        if self.tape.is_some() { Var::traced(&self.device, array) } else { Ok(Var::constant(array)) }
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
        let (Some(tape), true) = (&self.tape, traced) else {
            return Ok(Var::constant(array));
        };
        for (position, input) in inputs.iter().enumerate() {
            assert!(input.factors().is_none() || !input.is_traced(), "an operation multiplies its inputs out first");
            let again = inputs[..position].iter().any(|other| input.is_traced() && other.is_same(input));
            assert!(!again, "an operation takes the same traced value twice");
        }
        let out = Var::traced(&self.device, array)?;
        let slots: Vec<Option<Slot<D>>> = inputs.iter().map(|input| input.slot(&self.device)).collect();
        let out_slot = out.slot(&self.device).expect("a traced value has a gradient");
        let device = self.device.clone();
        tape.borrow_mut().add_backward_op(move |gradients: &mut Gradients<f32, D>| {
            // Buffers are moved out while the kernel runs, so that several can be held at once without `unsafe`.
            let grad_out = out_slot.take(gradients)?;
            let mut buffers = Vec::with_capacity(slots.len());
            for slot in &slots {
                buffers.push(slot.as_ref().map(|slot| slot.lend(gradients)).transpose()?);
            }
            backward(&device, &grad_out, &mut buffers)?;
            for (slot, buffer) in slots.iter().zip(buffers) {
                if let (Some(slot), Some(buffer)) = (slot, buffer) {
                    slot.put(gradients, buffer)?;
                }
            }
            // Nobody reads the output's gradient after this.
            D::recycle_gradient(grad_out);
            Ok(())
        });
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
        let tape = self.tape.as_ref().expect("only a recording graph can be differentiated").take();
        assert_eq!(loss.shape(), (1, 1), "only a scalar can be differentiated");
        let mut gradients = match loss.identity() {
            // dfdx sets the gradient of its scalar to one, which is the loss's own.
            Some(identity) => identity.clone().put_tape(tape).try_backward()?,
            None => Gradients::leaky(),
        };
        let slot = |leaf: &Var<D>| leaf.slot(&self.device).expect("only a leaf has a gradient");
        leaves.iter().map(|leaf| slot(leaf).take(&mut gradients)).collect()
    }
}
