//! Launches of `rows.cu`.

use cudarc::driver::LaunchAsync;

use crate::Store;
use crate::cuda::{Launched, Memory, Module, function, grid, in_fours, length};

pub(crate) const MODULE: Module = Module {
    name: "rows",
    needs: &[],
    text: include_str!("rows.cu"),
    kernels: &["scale_rows", "row_products", "repeat_rows"],
};

/// Stores `s ⊙ x`: [`super::scale`], and the gradient of x of [`super::scale_backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn scale(x: &Memory, factors: &Memory, out: &mut Memory, store: Store) -> Launched {
    let (n, rows) = (length(x), length(factors));
    assert!(n == length(out) && n.is_multiple_of(rows.max(1)), "rows: lengths");
    if n == 0 || rows == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "scale_rows");
    // SAFETY: x and out have n elements, which are a multiple of `rows`.
    unsafe { kernel.launch(in_fours(n), (x, factors, out, rows, n, store.flag())) }
}

/// Adds `Σ_f x ⊙ y`: the gradient of the factors of [`super::scale_backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn add_products(x: &Memory, y: &Memory, out: &mut Memory) -> Launched {
    let (n, rows) = (length(x), length(out));
    assert!(n == length(y) && n.is_multiple_of(rows.max(1)), "rows: lengths of products");
    if n == 0 || rows == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "row_products");
    let blocks = grid([rows.div_ceil(256), 1, 1], 256);
    // SAFETY: x and y have `rows` times as many elements as there are features.
    unsafe { kernel.launch(blocks, (x, y, out, rows, n / rows)) }
}

/// Writes each of the numbers of `x` for every row: `out` is `[features, R]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If `out` is not a multiple of `x`.
pub fn repeat(x: &Memory, out: &mut Memory) -> Launched {
    let n = length(out);
    assert!(n.is_multiple_of(length(x).max(1)) && (n == 0 || length(x) > 0), "rows: lengths to repeat");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "repeat_rows");
    // SAFETY: out has n elements, x one for each n / x.len() of them.
    unsafe { kernel.launch(in_fours(n), (x, &mut *out, n / length(x), n)) }
}
