//! The one place where dfdx tensors and our kernels meet.
//!
//! dfdx gives tensors, the tape and gradients; `spdflow-kernels` gives the operations, over plain slices. An operation
//! reads its inputs as [`Buffers::View`]s, makes an output tensor, and records a closure that accumulates gradients:
//! one tape entry for what would be a dozen stock operations. All method code is generic over [`Backend`] and never
//! sees a slice.
//!
//! * [`Buffers`], [`Kernels`], [`Backend`]: what a device must offer (`backend.rs`; `cpu.rs` and `cpu_memory.rs` implement
//!   them).
//! * [`SequenceKernels`]: the part of it that only models of token sequences use (`sequence.rs`, `cpu_sequence.rs`).
//! * [`Graph`] and [`Var`]: the values of one step and how they depend on each other (`graph.rs`).
//! * `slot.rs`: gradient buffers with their shapes erased; `pool.rs`: memory that views use again.
//! * `ops/`: the operations as methods of [`Graph`].

mod backend;
mod cpu;
mod cpu_memory;
mod cpu_sequence;
mod graph;
mod ops;
mod pool;
mod sequence;
mod slot;

pub use backend::{Array, Backend, Buffers, GradientBuffer, GroupedShape, Kernels, SiteGradients, SiteViews};
pub use graph::{DeviceResult, Graph, Var};
pub use ops::{MaskInput, SiteInputs};
pub use sequence::SequenceKernels;
