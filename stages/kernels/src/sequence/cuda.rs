//! Launches of `sequence.cu`.

use cudarc::driver::LaunchAsync;

use super::check;
use crate::cuda::{Launched, Memory, Module, function, grid, in_fours, length as length_of, narrow};

pub(crate) const MODULE: Module = Module {
    name: "sequence",
    needs: &[],
    text: include_str!("sequence.cu"),
    kernels: &["add_to_positions", "last", "last_backward"],
};

/// As [`super::add_to_positions`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn add_to_positions(x: &Memory, constant: &Memory, out: &mut Memory, rows: usize, length: usize) -> Launched {
    let n = length_of(x);
    let d = check(n as usize, rows, length);
    assert_eq!(
        (n as usize, length_of(out), length_of(constant) as usize),
        (d * rows, n, d * length),
        "positions of {d} features"
    );
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "add_to_positions");
    // SAFETY: x and `out` have d rows of n / d elements, and there are `length` constants for each of the d features.
    unsafe { kernel.launch(in_fours(n), (x, constant, out, narrow(rows), narrow(length), n)) }
}

/// As [`super::last`], into `out` `[d, R / length]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn last(x: &Memory, out: &mut Memory, rows: usize, length: usize) -> Launched {
    check(length_of(x) as usize, rows, length);
    let n = length_of(out);
    assert_eq!(n as usize * length, length_of(x) as usize, "last positions");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "last");
    // SAFETY: x has `length` times the n elements of `out`.
    unsafe { kernel.launch(grid([n.div_ceil(256).min(4096), 1, 1], 256), (x, out, narrow(length), n)) }
}

/// As [`super::last_backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn last_backward(grad_out: &Memory, grad_x: &mut Memory, rows: usize, length: usize) -> Launched {
    check(length_of(grad_x) as usize, rows, length);
    let n = length_of(grad_out);
    assert_eq!(n as usize * length, length_of(grad_x) as usize, "gradient of last positions");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&grad_out.device(), &MODULE, "last_backward");
    // SAFETY: `grad_x` has `length` times the n elements of `grad_out`.
    unsafe { kernel.launch(grid([n.div_ceil(256).min(4096), 1, 1], 256), (grad_out, grad_x, narrow(length), n)) }
}
