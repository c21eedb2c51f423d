//! The one place where dfdx tensors and our kernels meet.
//!
//! dfdx gives devices, the tape and the store of gradients; `spdflow-kernels` gives the operations, over plain slices.
//! An operation reads its inputs as [`Buffers::View`]s, makes an output, and records a closure that accumulates
//! gradients: one tape entry for what would be a dozen stock operations. The data of a value is the backend's own:
//! dfdx lends a tensor's data only as a copy. All method code is generic over [`Backend`] and never sees a slice.
//!
//! * [`Buffers`], [`Kernels`], [`Backend`]: what a device must offer (`backend.rs`; `cpu.rs` and its neighbours implement
//!   them).
//! * [`SequenceKernels`]: the part of it that only models of token sequences use (`sequence.rs`, `cpu_sequence.rs`).
//! * [`Graph`] and [`Var`]: the values of one step and how they depend on each other (`graph.rs`).
//! * `factored.rs`: values that are sums of products, multiplied out only when they must be.
//! * `slot.rs`: where a value's gradient is kept; `pool.rs`: memory that is used again.
//! * `reduction.rs`: gradients summed over ranks.
//! * `ops/`: the operations as methods of [`Graph`].

mod backend;
mod cpu;
mod cpu_memory;
mod cpu_sequence;
mod cpu_site;
mod factored;
mod gradients;
mod graph;
mod ops;
mod pool;
mod reduction;
mod sequence;
mod site_views;
mod slot;

pub use backend::{Array, Backend, Buffers, Gradient, GradientBuffer, GroupedShape, Kernels};
pub use gradients::sum_gradients;
pub use graph::{DeviceResult, Graph, Precision, Var};
pub use ops::{MaskInput, MaskSource, SiteInputs};
pub use reduction::Reduction;
pub use sequence::SequenceKernels;
pub use site_views::{MaskView, SiteGradients, SiteViews, SourceView};
