//! Launches of `ci_mlp.cu`.

use cudarc::driver::{DevicePtr, DevicePtrMut, LaunchAsync};

use crate::Store;
use crate::cuda::{Launched, Memory, Module, clear, function, grid, length, memory, narrow};

pub(crate) const MODULE: Module = Module {
    name: "ci_mlp",
    needs: &[],
    text: include_str!("ci_mlp.cu"),
    kernels: &["ci_mlp_forward", "ci_mlp_backward", "ci_mlp_weights"],
};

/// Rows of a block, forward and backward.
const ROWS: u32 = 1024;

/// The weights of all components' networks, `[w1, b1, w2, b2]`; shapes as in [`super::Weights`].
pub type Weights<'a> = [&'a Memory; 4];

/// Returns `(C, H)` after checking the weights.
fn shape([w1, b1, w2, b2]: Weights<'_>) -> (u32, u32) {
    let components = length(b2);
    let size = length(w1);
    assert_eq!((length(b1), length(w2)), (size, size), "ci_mlp: weights of {components} components");
    let hidden = size.checked_div(components).unwrap_or(0);
    assert_eq!(size, components * hidden, "ci_mlp: weights of {components} components");
    assert!(components < 1 << 16, "ci_mlp: {components} components, a GPU takes fewer than 65536 of a site");
    (components, hidden)
}

/// As [`super::forward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward(x: &Memory, weights: Weights<'_>, out: &mut Memory, rows: usize) -> Launched {
    let ((components, hidden), rows) = (shape(weights), narrow(rows));
    let size = components * rows;
    assert_eq!((length(x), length(out)), (size, size), "ci_mlp: x and z [{components}, {rows}]");
    if size == 0 {
        return Ok(());
    }
    let [w1, b1, w2, b2] = weights;
    let kernel = function(&x.device(), &MODULE, "ci_mlp_forward");
    // SAFETY: every array has the length that was checked.
    unsafe { kernel.launch(grid([rows.div_ceil(ROWS), components, 1], 256), (x, w1, b1, w2, b2, out, hidden, rows)) }
}

/// As [`super::backward`]; the gradients of the weights are `[w1, b1, w2, b2]`, added to.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward(
    x: &Memory,
    weights: Weights<'_>,
    grad_out: &Memory,
    grad_x: Option<(&mut Memory, Store)>,
    grads: [&mut Memory; 4],
    rows: usize,
) -> Launched {
    let ((components, hidden), rows) = (shape(weights), narrow(rows));
    let size = components * rows;
    assert_eq!((length(x), length(grad_out)), (size, size), "ci_mlp: x and ∂z [{components}, {rows}]");
    for (grad, weight) in grads.iter().zip(weights) {
        assert_eq!(length(grad), length(weight), "ci_mlp: gradients of the weights");
    }
    if let Some((grad_x, _)) = &grad_x {
        assert_eq!(length(grad_x), size, "ci_mlp: ∂x [{components}, {rows}]");
    }
    if hidden == 0 || size == 0 {
        return match grad_x {
            Some((grad_x, Store::Write)) => clear(grad_x),
            _ => Ok(()),
        };
    }
    let [w1, b1, w2, _] = weights;
    let handle = x.device();
    let (blocks, units) = (rows.div_ceil(ROWS), components * hidden);
    let mut parts = memory(&handle, blocks as usize * (3 * units + components) as usize)?;
    let (to, add) = grad_x.map_or((0, 0), |(grad_x, store)| (*grad_x.device_ptr_mut(), store.flag()));
    let kernel = function(&handle, &MODULE, "ci_mlp_backward");
    let arguments = (x, w1, b1, w2, grad_out, to, add, &mut parts, hidden, rows, components);
    // SAFETY: every array has the length that was checked; each block of rows has a part.
    unsafe { kernel.launch(grid([blocks, components, 1], 128), arguments) }?;
    let kernel = function(&handle, &MODULE, "ci_mlp_weights");
    let config = grid([(3 * units + components).div_ceil(256).min(4096), 1, 1], 256);
    let [grad_w1, grad_b1, grad_w2, grad_b2] = grads.map(|grad| *grad.device_ptr());
    // SAFETY: the gradients have the lengths of their weights.
    unsafe { kernel.launch(config, (&parts, blocks, units, components, grad_w1, grad_b1, grad_w2, grad_b2)) }
}
