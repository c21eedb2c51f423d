//! The hot numerical operations of spdflow, over plain slices.
//!
//! One operation, one folder: `mod.rs` holds the formula, the shapes and the checks, `cpu.rs` the loops, `tests.rs`
//! what must hold. This crate knows neither tensors nor tapes; `spdflow-stages` joins it to them.
//!
//! **Layout.** Activations are *feature-major*: `[features, rows]`, row-major in memory, so that the values of one
//! feature for consecutive rows of the batch lie side by side. Every loop vectorises over the batch, whatever the
//! (often tiny) number of features, and the gradient of a component's weights is a sum within one contiguous slice.
//! Weights keep the layout in which they are saved.
//!
//! **Determinism.** Sums run in a fixed order: sixteen lanes over the batch, then a fixed tree (`lanes`). Work is
//! split among threads by output, never by summand, or into tiles of rows whose width depends on the shape alone and
//! whose sums are added in order (`masked_site`), so results do not depend on the number of threads. They may
//! depend on the processor's feature level ([`simd::Level`]), because fused multiply-adds round once.
//!
//! **Gradients** are accumulated (`+=`) into the slices given, or written where a [`Store`] says so; `None` means nobody
//! needs that gradient.

pub mod adamw;
pub mod ascent;
pub mod attention;
pub mod bf16;
pub mod ci_mlp;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod divergence;
mod elementwise;
pub mod embedding;
mod exponential;
pub mod faithfulness;
pub mod gelu;
pub mod importance_minimality;
mod lanes;
pub mod layer_norm;
pub mod linear;
pub mod masked_site;
pub mod memory;
pub mod parallel;
pub mod philox;
pub mod relu;
pub mod rows;
pub mod sequence;
pub mod sigmoid;
pub mod simd;
pub mod sparse;
mod square;
pub mod squared_error;
mod store;
pub mod sum;
#[cfg(test)]
mod testing;
pub mod transpose;
mod vector;

pub use store::Store;
