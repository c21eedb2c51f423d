//! Matrix products with feature-major activations: `y = W x`, `y = Wᵀ x`, and the gradients of the weights.
//!
//! Three products cover every linear map here. With `x [n, R]`:
//! * [`apply`]: `y [m, R] += W [m, n] · x` (a target's weight, PyTorch layout; also `U` backward),
//! * [`apply_transposed`]: `y [m, R] += Wᵀ x` with `W [n, m]` (components: `a = Vᵀ x`, `y = Uᵀ a`),
//! * [`outer`]: `G [m, n] += y xᵀ` (weight gradients).
//!
//! Few features (toy models) go through direct loops over tiles of the batch; larger products go to `gemm`.

mod cpu;
#[cfg(test)]
mod tests;

/// Adds `W x` to `y`: `W [m, n]`, `x [n, rows]`, `y [m, rows]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn apply(w: &[f32], x: &[f32], y: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: W [{m}, {n}], x [{n}, {rows}]");
    if cpu::is_small(m, n) {
        cpu::small_apply(w, x, y, n, rows, n, 1);
    } else {
        cpu::product(y, w, x, [m, n, rows], [n as isize, 1], [rows as isize, 1]);
    }
}

/// Adds `Wᵀ x` to `y`: `W [n, m]`, `x [n, rows]`, `y [m, rows]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn apply_transposed(w: &[f32], x: &[f32], y: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((w.len(), x.len(), y.len()), (m * n, n * rows, m * rows), "linear: Wᵀ of [{n}, {m}], x [{n}, {rows}]");
    if cpu::is_small(m, n) {
        cpu::small_apply(w, x, y, n, rows, 1, m);
    } else {
        cpu::product(y, w, x, [m, n, rows], [1, m as isize], [rows as isize, 1]);
    }
}

/// Adds `y xᵀ` to `g`: `y [m, rows]`, `x [n, rows]`, `g [m, n]`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn outer(y: &[f32], x: &[f32], g: &mut [f32], m: usize, n: usize, rows: usize) {
    assert_eq!((y.len(), x.len(), g.len()), (m * rows, n * rows, m * n), "outer: [{m}, {rows}] by [{n}, {rows}]");
    if cpu::is_small(m, n) {
        cpu::small_outer(y, x, g, n, rows);
    } else {
        cpu::product(g, y, x, [m, rows, n], [rows as isize, 1], [1, rows as isize]);
    }
}
