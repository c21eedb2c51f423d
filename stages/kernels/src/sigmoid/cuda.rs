//! Launches of `sigmoid.cu`.

use cudarc::driver::{DeviceRepr, LaunchAsync};

use super::Sigmoid;
use crate::Store;
use crate::cuda::{Launched, Memory, Module, function, in_fours, length};

pub(crate) const MODULE: Module = Module {
    name: "sigmoid",
    needs: &[],
    text: include_str!("sigmoid.cu"),
    kernels: &["sigmoid_forward", "sigmoid_backward"],
};

/// As the kernels take it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Arguments {
    kind: i32,
    a: f32,
    scale: f32,
    x_shift: f32,
    y_shift: f32,
}

// SAFETY: it has the layout of `struct Sigmoid` in `sigmoid.cu`: numbers of 32 bits.
unsafe impl DeviceRepr for Arguments {}

impl From<Sigmoid> for Arguments {
    fn from(function: Sigmoid) -> Self {
        let plain = |kind, a| Self { kind, a, scale: 0.0, x_shift: 0.0, y_shift: 0.0 };
        // The kinds are numbered as in `sigmoid.cu`.
        match function {
            Sigmoid::Normal => plain(0, 0.0),
            Sigmoid::Hard => plain(1, 0.0),
            Sigmoid::LeakyHard { alpha } => plain(2, alpha),
            Sigmoid::UpperLeakyHard { alpha } => plain(3, alpha),
            Sigmoid::LowerLeakyHard { alpha } => plain(4, alpha),
            Sigmoid::SwishHard { beta, scale, x_shift, y_shift } => Self { kind: 5, a: beta, scale, x_shift, y_shift },
            Sigmoid::Swish { beta } => plain(6, beta),
            Sigmoid::UpsideDownSwish { beta } => plain(7, beta),
        }
    }
}

/// As [`super::forward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn forward(of: Sigmoid, x: &Memory, out: &mut Memory) -> Launched {
    let n = length(x);
    assert_eq!(n, length(out), "sigmoid: lengths of input and output");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "sigmoid_forward");
    // SAFETY: both arrays have n elements.
    unsafe { kernel.launch(in_fours(n), (Arguments::from(of), x, out, n)) }
}

/// As [`super::backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn backward(of: Sigmoid, x: &Memory, grad_out: &Memory, grad_x: &mut Memory, store: Store) -> Launched {
    let n = length(x);
    assert_eq!((n, n), (length(grad_out), length(grad_x)), "sigmoid: lengths of input and gradients");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "sigmoid_backward");
    // SAFETY: all arrays have n elements.
    unsafe { kernel.launch(in_fours(n), (Arguments::from(of), x, grad_out, grad_x, n, store.flag())) }
}
