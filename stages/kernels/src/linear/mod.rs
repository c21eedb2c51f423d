//! Matrix products with feature-major activations: `y = W x`, `y = Wᵀ x`, and the gradients of the weights.
//!
//! Three products cover every linear map here. With `x [n, R]`:
//! * [`apply`]: `y [m, R] = W [m, n] · x` (a target's weight, PyTorch layout; also `U` backward),
//! * [`apply_transposed`]: `y [m, R] = Wᵀ x` with `W [n, m]` (components: `a = Vᵀ x`, `y = Uᵀ a`),
//! * [`outer`]: `G [m, n] = y xᵀ` (weight gradients).
//!
//! A [`Store`] says whether the result is written or added to what is there. Few features (toy models) go through
//! direct loops over tiles of the batch (`small.rs`); larger products go to `avx512.rs` or, where there is no AVX-512, to the crate
//! `gemm`. The variants that end in `_here` stay on the calling thread, for kernels that share out their own tiles.

use crate::Store;
use cpu::Sharing;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod small;
#[cfg(test)]
mod tests;

/// Writes `W x` to `y` or adds it: `W [m, n]`, `x [n, rows]`, `y [m, rows]`; `shape` is `[m, n, rows]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn apply(w: &[f32], x: &[f32], y: &mut [f32], shape: [usize; 3], store: Store) {
    let [m, n, rows] = shape;
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: W [{m}, {n}], x [{n}, {rows}]");
    cpu::apply(w, x, y, shape, store, Sharing::Allowed);
}

/// As [`apply`], on the calling thread.
pub(crate) fn apply_here(w: &[f32], x: &[f32], y: &mut [f32], shape: [usize; 3], store: Store) {
    let [m, n, rows] = shape;
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: W [{m}, {n}], x [{n}, {rows}]");
    cpu::apply(w, x, y, shape, store, Sharing::Forbidden);
}

/// Writes `Wᵀ x` to `y` or adds it: `W [n, m]`, `x [n, rows]`, `y [m, rows]`; `shape` is `[m, n, rows]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn apply_transposed(w: &[f32], x: &[f32], y: &mut [f32], shape: [usize; 3], store: Store) {
    let [m, n, rows] = shape;
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: Wᵀ of [{n}, {m}], x [{n}, {rows}]");
    cpu::apply_transposed(w, x, y, shape, store, Sharing::Allowed);
}

/// As [`apply_transposed`], on the calling thread.
pub(crate) fn apply_transposed_here(w: &[f32], x: &[f32], y: &mut [f32], shape: [usize; 3], store: Store) {
    let [m, n, rows] = shape;
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: Wᵀ of [{n}, {m}], x [{n}, {rows}]");
    cpu::apply_transposed(w, x, y, shape, store, Sharing::Forbidden);
}

/// Writes `y xᵀ` to `g` or adds it: `y [m, rows]`, `x [n, rows]`, `g [m, n]`; `shape` is `[m, n, rows]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn outer(y: &[f32], x: &[f32], g: &mut [f32], shape: [usize; 3], store: Store) {
    let [m, n, rows] = shape;
    assert_eq!((y.len(), x.len(), g.len()), (m * rows, n * rows, m * n), "outer: [{m}, {rows}] by [{n}, {rows}]");
    cpu::outer(y, x, g, shape, store, Sharing::Allowed);
}

/// As [`outer`], on the calling thread.
pub(crate) fn outer_here(y: &[f32], x: &[f32], g: &mut [f32], shape: [usize; 3], store: Store) {
    let [m, n, rows] = shape;
    assert_eq!((y.len(), x.len(), g.len()), (m * rows, n * rows, m * n), "outer: [{m}, {rows}] by [{n}, {rows}]");
    cpu::outer(y, x, g, shape, store, Sharing::Forbidden);
}
