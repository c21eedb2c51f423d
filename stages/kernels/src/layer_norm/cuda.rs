//! Launches of `layer_norm.cu`.

use cudarc::driver::{DevicePtr, LaunchAsync};

use crate::cuda::total::wide_memory;
use crate::cuda::{Launched, Memory, Module, address_mut, function, grid, length, narrow};

pub(crate) const MODULE: Module = Module {
    name: "layer_norm",
    needs: &[],
    text: include_str!("layer_norm.cu"),
    kernels: &["layer_norm_forward", "layer_norm_backward", "layer_norm_parameters"],
};

/// Rows of a block (`ROWS` there).
const ROWS: u32 = 16;

/// Threads of a block.
const THREADS: u32 = 512;

/// The gradients that are wanted, as [`super::Gradients`].
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the input, `[d, R]`.
    pub x: Option<&'a mut Memory>,
    /// Of γ, `[d]`.
    pub scale: Option<&'a mut Memory>,
    /// Of β, `[d]`.
    pub shift: Option<&'a mut Memory>,
}

/// As [`super::forward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn forward(x: &Memory, scale: &Memory, shift: &Memory, out: &mut Memory, rows: usize) -> Launched {
    check(&[x, out], &[scale, shift], rows);
    if length(x) == 0 {
        return Ok(());
    }
    let (d, rows) = (length(scale), narrow(rows));
    let kernel = function(&x.device(), &MODULE, "layer_norm_forward");
    let blocks = grid([rows.div_ceil(ROWS), 1, 1], THREADS);
    // SAFETY: x and `out` have d times `rows` numbers, scale and shift d.
    unsafe { kernel.launch(blocks, (x, scale, shift, out, d, rows)) }
}

/// As [`super::backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn backward(x: &Memory, scale: &Memory, grad_out: &Memory, grads: Gradients<'_>, rows: usize) -> Launched {
    check(&[x, grad_out], &[scale], rows);
    let Gradients { x: grad_x, scale: grad_scale, shift: grad_shift } = grads;
    let fits = |grad: &Option<&mut Memory>, n| grad.as_ref().is_none_or(|grad| length(grad) == n);
    let d = length(scale);
    let all_fit = fits(&grad_x, length(x)) && fits(&grad_scale, d) && fits(&grad_shift, d);
    assert!(all_fit, "layer norm: gradients of {d} features, {rows} rows");
    if length(x) == 0 {
        return Ok(());
    }
    let rows = narrow(rows);
    let device = x.device();
    let statistics = match grad_scale {
        Some(_) => Some(wide_memory(&device, 2 * rows as usize)?),
        None => None,
    };
    let statistics_at = statistics.as_ref().map_or(0, |statistics| *statistics.device_ptr());
    if grad_x.is_some() || grad_scale.is_some() {
        let kernel = function(&device, &MODULE, "layer_norm_backward");
        let blocks = grid([rows.div_ceil(ROWS), 1, 1], THREADS);
        let arguments = (x, scale, grad_out, address_mut(grad_x), statistics_at, d, rows);
        // SAFETY: x and the gradients have d times `rows` numbers, scale has d, the statistics 2 times `rows`.
        unsafe { kernel.launch(blocks, arguments) }?;
    }
    if grad_scale.is_some() || grad_shift.is_some() {
        let kernel = function(&device, &MODULE, "layer_norm_parameters");
        let arguments = (x, grad_out, statistics_at, address_mut(grad_scale), address_mut(grad_shift), rows);
        // SAFETY: as above; there is a block for each of the d features. The statistics exist where scale's gradient does.
        unsafe { kernel.launch(grid([d, 1, 1], THREADS), arguments) }?;
    }
    Ok(())
}

fn check(matrices: &[&Memory], vectors: &[&Memory], rows: usize) {
    let d = length(vectors[0]);
    let fits =
        matrices.iter().all(|m| length(m) as usize == d as usize * rows) && vectors.iter().all(|v| length(v) == d);
    assert!(fits, "layer norm: {d} features, {rows} rows");
}
