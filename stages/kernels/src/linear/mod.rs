//! Matrix products with feature-major activations: `y = W x`, `y = Wᵀ x`, and the gradients of the weights.
//!
//! Three products cover every linear map here. With `x [n, R]`:
//! * [`apply`]: `y [m, R] += W [m, n] · x` (a target's weight, PyTorch layout; also `U` backward),
//! * [`apply_transposed`]: `y [m, R] += Wᵀ x` with `W [n, m]` (components: `a = Vᵀ x`, `y = Uᵀ a`),
//! * [`outer`]: `G [m, n] += y xᵀ` (weight gradients).
//!
//! Few features (toy models) go through direct loops over tiles of the batch; larger products go to `gemm`. The
//! variants that end in `_here` stay on the calling thread, for kernels that share out their own tiles.

use cpu::Sharing;

mod cpu;
#[cfg(test)]
mod tests;

/// Adds `W x` to `y`: `W [m, n]`, `x [n, rows]`, `y [m, rows]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn apply(w: &[f32], x: &[f32], y: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: W [{m}, {n}], x [{n}, {rows}]");
    cpu::apply(w, x, y, m, n, rows, Sharing::Allowed);
}

/// As [`apply`], on the calling thread.
pub(crate) fn apply_here(w: &[f32], x: &[f32], y: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: W [{m}, {n}], x [{n}, {rows}]");
    cpu::apply(w, x, y, m, n, rows, Sharing::Forbidden);
}

/// Adds `Wᵀ x` to `y`: `W [n, m]`, `x [n, rows]`, `y [m, rows]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn apply_transposed(w: &[f32], x: &[f32], y: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: Wᵀ of [{n}, {m}], x [{n}, {rows}]");
    cpu::apply_transposed(w, x, y, m, n, rows, Sharing::Allowed);
}

/// As [`apply_transposed`], on the calling thread.
pub(crate) fn apply_transposed_here(w: &[f32], x: &[f32], y: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: Wᵀ of [{n}, {m}], x [{n}, {rows}]");
    cpu::apply_transposed(w, x, y, m, n, rows, Sharing::Forbidden);
}

/// Adds `y xᵀ` to `g`: `y [m, rows]`, `x [n, rows]`, `g [m, n]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn outer(y: &[f32], x: &[f32], g: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((y.len(), x.len(), g.len()), (m * rows, n * rows, m * n), "outer: [{m}, {rows}] by [{n}, {rows}]");
    cpu::outer(y, x, g, m, n, rows, Sharing::Allowed);
}

/// As [`outer`], on the calling thread.
pub(crate) fn outer_here(y: &[f32], x: &[f32], g: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((y.len(), x.len(), g.len()), (m * rows, n * rows, m * n), "outer: [{m}, {rows}] by [{n}, {rows}]");
    cpu::outer(y, x, g, m, n, rows, Sharing::Forbidden);
}
