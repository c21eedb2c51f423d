//! Launches of `squared_error.cu`.

use cudarc::driver::{DriverError, LaunchAsync};

use crate::Store;
use crate::cuda::total::{Wide, check_scalar, total, wide_memory};
use crate::cuda::{Launched, Memory, Module, address, clear, function, grid, in_fours, length};

pub(crate) const MODULE: Module = Module {
    name: "squared_error",
    needs: &[],
    text: include_str!("squared_error.cu"),
    kernels: &["squared_error_parts", "squared_error_backward"],
};

/// Blocks of a sum: enough to fill a device, few enough for one block to add their parts.
const MOST_PARTS: u32 = 1024;

/// As [`super::forward`], into `out`, `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn forward(prediction: &Memory, target: &Memory, out: &mut Memory) -> Launched {
    sum(prediction, Some(target), out)
}

/// Writes `Σ (x − target)²` to `out`, `[1]`; of x alone without a target.
pub(crate) fn sum(x: &Memory, target: Option<&Memory>, out: &mut Memory) -> Launched {
    check_scalar(out);
    match parts(x, target)? {
        Some((parts, count)) => total(&parts, count, out),
        None => clear(out),
    }
}

/// Returns what adds up to `Σ (x − target)²`, and how many parts that are; nothing if x is empty.
pub(crate) fn parts(x: &Memory, target: Option<&Memory>) -> Result<Option<(Wide, u32)>, DriverError> {
    let n = length(x);
    assert!(target.is_none_or(|target| length(target) == n), "squared error: lengths");
    if n == 0 {
        return Ok(None);
    }
    let count = n.div_ceil(4 * 256).min(MOST_PARTS);
    let device = x.device();
    let parts = wide_memory(&device, count as usize)?;
    let kernel = function(&device, &MODULE, "squared_error_parts");
    // SAFETY: x, and the target if there is one, have n elements; every block writes one of the `count` parts.
    unsafe { kernel.launch(grid([count, 1, 1], 256), (x, address(target), &parts, n)) }?;
    Ok(Some((parts, count)))
}

/// As [`super::backward`], with `grad_out` `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn backward(
    prediction: &Memory,
    target: &Memory,
    grad_out: &Memory,
    grad_prediction: &mut Memory,
    store: Store,
) -> Launched {
    let n = length(grad_prediction);
    assert_eq!((length(prediction), length(target)), (n, n), "squared error: lengths");
    check_scalar(grad_out);
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&prediction.device(), &MODULE, "squared_error_backward");
    let arguments = (prediction, target, grad_out, grad_prediction, n, store.flag());
    // SAFETY: all arrays but `grad_out` have n elements, that has one.
    unsafe { kernel.launch(in_fours(n), arguments) }
}
