//! Launches of `gelu.cu`.

use cudarc::driver::LaunchAsync;

use crate::Store;
use crate::cuda::{Launched, Memory, Module, function, in_fours, length};

pub(crate) const MODULE: Module =
    Module { name: "gelu", needs: &[], text: include_str!("gelu.cu"), kernels: &["gelu_forward", "gelu_backward"] };

/// As [`super::forward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn forward(x: &Memory, out: &mut Memory) -> Launched {
    let n = length(x);
    assert_eq!(n, length(out), "gelu: lengths of input and output");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "gelu_forward");
    // SAFETY: both arrays have n elements.
    unsafe { kernel.launch(in_fours(n), (x, out, n)) }
}

/// As [`super::backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn backward(x: &Memory, grad_out: &Memory, grad_x: &mut Memory, store: Store) -> Launched {
    let n = length(x);
    assert_eq!((n, n), (length(grad_out), length(grad_x)), "gelu: lengths of input and gradients");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&x.device(), &MODULE, "gelu_backward");
    // SAFETY: all arrays have n elements.
    unsafe { kernel.launch(in_fours(n), (x, grad_out, grad_x, n, store.flag())) }
}
