//! Launches of `total.cu`: the second stage of a sum to one number. The first leaves a sum for each block in memory of its
//! own, so that the order of additions depends on the shape alone.

use cudarc::driver::{CudaSlice, DriverError, LaunchAsync};

use super::{Handle, Launched, Memory, Module, function, grid, length, narrow};

pub(crate) const MODULE: Module =
    Module { name: "total", needs: &[], text: include_str!("total.cu"), kernels: &["total"] };

/// An array of f64 on the device.
pub(crate) type Wide = CudaSlice<f64>;

/// Returns memory for `length` numbers of 64 bits; it holds arbitrary ones until a kernel has written them.
///
/// # Errors
/// The device's, if it has no memory left.
pub(crate) fn wide_memory(device: &Handle, length: usize) -> Result<Wide, DriverError> {
    // SAFETY: every bit pattern is an f64.
    unsafe { device.alloc(length.max(1)) }
}

/// Writes the sum of the first `count` parts to `out`, `[1]`; zero if there is none.
pub(crate) fn total(parts: &Wide, count: u32, out: &mut Memory) -> Launched {
    assert!(narrow(cudarc::driver::DeviceSlice::len(parts)) >= count, "total: fewer than {count} parts");
    check_scalar(out);
    let kernel = function(&parts.device(), &MODULE, "total");
    // SAFETY: there are `count` parts, and `out` has one element.
    unsafe { kernel.launch(grid([1, 1, 1], 256), (parts, count, out)) }
}

/// Checks that an array is a single number.
///
/// # Panics
/// If it is not.
pub(crate) fn check_scalar(scalar: &Memory) {
    assert_eq!(length(scalar), 1, "a number on the device is an array of one element");
}
