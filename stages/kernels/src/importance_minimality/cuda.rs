//! Launches of `importance_minimality.cu`.

use cudarc::driver::{DeviceRepr, LaunchAsync};

use super::Constants;
use crate::Store;
use crate::cuda::total::check_scalar;
use crate::cuda::{Launched, Memory, Module, address, function, grid, in_fours, length, memory, narrow};

pub(crate) const MODULE: Module = Module {
    name: "importance_minimality",
    needs: &[],
    text: include_str!("importance_minimality.cu"),
    kernels: &["importance_sums", "importance_value", "importance_slopes", "importance_backward"],
};

/// As the kernels take the constants.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Arguments {
    beta: f64,
    ranks: f64,
    p: f32,
    eps: f32,
}

// SAFETY: it has the layout of `struct Constants` in `importance_minimality.cu`.
unsafe impl DeviceRepr for Arguments {}

impl From<Constants> for Arguments {
    fn from(Constants { p, eps, beta, ranks }: Constants) -> Self {
        Self { beta, ranks, p, eps }
    }
}

/// As [`super::sums`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn sums(u: &Memory, weights: Option<&Memory>, constants: Constants, rows: usize, sums: &mut Memory) -> Launched {
    let components = length(sums);
    check_rows(u, weights, components, rows);
    if components == 0 {
        return Ok(());
    }
    let kernel = function(&sums.device(), &MODULE, "importance_sums");
    let arguments = (u, address(weights), Arguments::from(constants), sums, narrow(rows));
    // SAFETY: u has `rows` numbers for each of the blocks, the weights have `rows` if there are any.
    unsafe { kernel.launch(grid([components, 1, 1], 256), arguments) }
}

/// As [`super::value`], into `out`, `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If `out` is not a single number.
pub fn value(sums: &Memory, positions: f64, constants: Constants, out: &mut Memory) -> Launched {
    check_scalar(out);
    let kernel = function(&sums.device(), &MODULE, "importance_value");
    let arguments = (sums, length(sums), positions, Arguments::from(constants), out);
    // SAFETY: the length is that of `sums`; `out` has one element.
    unsafe { kernel.launch(grid([1, 1, 1], 256), arguments) }
}

/// As [`super::backward`], with `grad_out` `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    u: &Memory,
    weights: Option<&Memory>,
    constants: Constants,
    sums: &Memory,
    positions: f64,
    grad_out: &Memory,
    (grad_u, store): (&mut Memory, Store),
    rows: usize,
) -> Launched {
    let components = length(sums);
    check_rows(u, weights, components, rows);
    let n = length(u);
    assert_eq!(n, length(grad_u), "importance minimality: u [{components}, {rows}]");
    check_scalar(grad_out);
    if n == 0 {
        return Ok(());
    }
    let device = u.device();
    let slopes = memory(&device, components as usize)?;
    let kernel = function(&device, &MODULE, "importance_slopes");
    let arguments = (sums, components, positions, Arguments::from(constants), grad_out, &slopes);
    // SAFETY: sums and slopes have `components` numbers, `grad_out` has one.
    unsafe { kernel.launch(grid([components.div_ceil(256), 1, 1], 256), arguments) }?;
    let kernel = function(&device, &MODULE, "importance_backward");
    let Constants { p, eps, .. } = constants;
    let arguments = (u, address(weights), p, eps, &slopes, grad_u, narrow(rows), n, store.flag());
    // SAFETY: u and its gradient have n numbers, `rows` for each slope; the weights have `rows` if there are any.
    unsafe { kernel.launch(in_fours(n), arguments) }
}

fn check_rows(u: &Memory, weights: Option<&Memory>, components: u32, rows: usize) {
    assert_eq!(length(u) as usize, components as usize * rows, "importance minimality: u [{components}, {rows}]");
    assert!(weights.is_none_or(|w| length(w) as usize == rows), "importance minimality: weights [{rows}]");
}
