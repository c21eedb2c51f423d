//! The place of a value's gradient.
//!
//! On the tape a value is known by a number. Its gradient comes into being when the first contribution arrives, in the
//! backend's own memory; dfdx's store would hold tensors of dfdx's devices, which threads cannot share on a GPU.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::{Backend, Gradient, GradientBuffer};
use super::graph::DeviceResult;

/// A value's identity on the tape, unlike that of any other in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity(u64);

impl Identity {
    /// Returns a new one.
    pub(super) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The gradients of one backward pass.
pub(super) struct Gradients<D: Backend> {
    device: D,
    by_value: BTreeMap<Identity, GradientBuffer<D>>,
}

/// The gradients as the operations of a tape share them, and what went wrong in one of those.
pub(super) type Shared<D> = Rc<RefCell<Gradients<D>>>;

impl<D: Backend> Gradients<D> {
    /// Returns none.
    pub(super) fn shared(device: &D) -> Shared<D> {
        Rc::new(RefCell::new(Self { device: device.clone(), by_value: BTreeMap::new() }))
    }

    /// Sets a value's gradient.
    pub(super) fn set(&mut self, value: Slot, gradient: GradientBuffer<D>) {
        self.by_value.insert(value.identity, gradient);
    }

    /// Moves a gradient out; zeros if nothing has flowed into it.
    pub(super) fn take(&mut self, value: Slot) -> DeviceResult<GradientBuffer<D>, D> {
        match self.by_value.remove(&value.identity) {
            Some(gradient) => Ok(gradient),
            None => self.device.zeros(value.length),
        }
    }

    /// Moves a gradient out for an operation to contribute to.
    pub(super) fn lend(&mut self, value: Slot) -> Gradient<D> {
        Gradient { memory: self.by_value.remove(&value.identity), device: self.device.clone(), length: value.length }
    }

    /// Takes back a gradient that was lent.
    pub(super) fn put(&mut self, value: Slot, gradient: Gradient<D>) {
        if let Some(memory) = gradient.memory {
            self.by_value.insert(value.identity, memory);
        }
    }
}

/// A value as its gradient knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// Which value.
    pub(super) identity: Identity,
    /// How many elements it has.
    pub(super) length: usize,
}
