//! The one place where dfdx tensors and our kernels meet.
//!
//! dfdx gives the tape, and its processor as a device; `spdflow-kernels` gives the operations, over plain slices.
//! An operation reads its inputs as [`Buffers::View`]s, makes an output, and records a closure that accumulates
//! gradients: one tape entry for what would be a dozen stock operations. Data and gradients are the backend's own: dfdx
//! lends a tensor's data only as a copy, and its GPU cannot be shared by threads. All method code is generic over
//! [`Backend`] and never sees a slice.
//!
//! * [`Buffers`], [`Kernels`], [`Backend`]: what a device must offer (`backend.rs`; `cpu.rs` and its neighbours implement
//!   them).
//! * `cuda/`: the same on NVIDIA GPUs, in builds with the feature `cuda`.
//! * [`SequenceKernels`]: the part of it that only models of token sequences use (`sequence.rs`, `cpu_sequence.rs`).
//! * [`Graph`] and [`Var`]: the values of one step and how they depend on each other (`graph.rs`).
//! * `link.rs`: sums over the devices of several ranks.
//! * `factored.rs`: values that are sums of products, multiplied out only when they must be.
//! * `slot.rs`: where a value's gradient is kept; `pool.rs`: memory that is used again.
//! * `ops/`: the operations as methods of [`Graph`].

mod backend;
mod cpu;
mod cpu_memory;
mod cpu_sequence;
mod cpu_site;
#[cfg(feature = "cuda")]
mod cuda;
mod factored;
mod graph;
mod link;
mod ops;
mod pool;
mod sequence;
mod site_views;
mod slot;

pub use backend::{Array, Backend, Buffers, Gradient, GradientBuffer, GroupedShape, Kernels};
#[cfg(feature = "cuda")]
pub use cuda::{Gpu, on_gpu};
pub use graph::{DeviceResult, Graph, Precision, Var};
pub use link::{Link, copy_over_ranks, sum_gradients, sum_over_ranks};
pub use ops::{MaskInput, MaskSource, SiteInputs};
pub use sequence::SequenceKernels;
pub use site_views::{MaskView, SiteGradients, SiteViews, SourceView};
