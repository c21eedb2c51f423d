//! Launches of `adamw.cu`; the norm is that of `squared_error.cu`.

use cudarc::driver::{DeviceRepr, DriverError, LaunchAsync};

use super::{Factors, Update};
use crate::cuda::{Launched, Memory, Module, function, in_fours, length};
use crate::squared_error;

pub(crate) const MODULE: Module =
    Module { name: "adamw", needs: &[], text: include_str!("adamw.cu"), kernels: &["adamw_step"] };

// SAFETY: it has the layout of `struct Factors` in `adamw.cu`: eight f32 in the same order.
unsafe impl DeviceRepr for Factors {}

/// As [`super::step`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn step(
    parameter: &mut Memory,
    gradient: &Memory,
    mean: &mut Memory,
    variance: &mut Memory,
    update: Update,
) -> Launched {
    let n = length(parameter);
    assert_eq!(
        (length(gradient), length(mean), length(variance)),
        (n, n, n),
        "adamw: gradient and moments of a parameter"
    );
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&parameter.device(), &MODULE, "adamw_step");
    // SAFETY: all arrays have n elements.
    unsafe { kernel.launch(in_fours(n), (parameter, gradient, mean, variance, update.factors(), n)) }
}

/// As [`super::squared_norm`]; waits for the device.
///
/// # Errors
/// The device's, also of a kernel that ran before.
pub fn squared_norm(gradient: &Memory) -> Result<f64, DriverError> {
    let Some((parts, _)) = squared_error::cuda::parts(gradient, None)? else { return Ok(0.0) };
    Ok(parts.device().dtoh_sync_copy(&parts)?.iter().sum())
}
