//! What the CUDA twins of the kernels share: memory, compiled code, launches.
//!
//! A kernel's twin is `<op>/<op>.cu` and its launcher `<op>/cuda.rs`, which says how many threads do what and checks
//! lengths. [`open`] compiles every file for the device at hand ([`module`]) before the first step, so that launching
//! can only fail as the device fails. Everything runs on the device's one stream, in the order of the calls; results are
//! bits that depend on shapes alone, because sums over more than a block go through memory and are added in order.
//!
//! Launchers take memory of cudarc, [`Memory`], that a caller allocated. New memory from [`memory()`] holds arbitrary
//! numbers: a launcher says what it writes.

mod module;
#[cfg(feature = "nccl")]
pub mod nccl;
#[cfg(test)]
mod tests;
pub(crate) mod total;

use std::sync::Arc;

use cudarc::driver::{CudaDevice, CudaSlice, DevicePtr, DriverError, LaunchConfig, sys};

pub(crate) use module::function;
pub use module::{LoadError, Module, load};

/// An array on the device.
pub type Memory = CudaSlice<f32>;

/// The device's handle.
pub type Handle = Arc<CudaDevice>;

/// What a launcher returns.
pub type Launched = Result<(), DriverError>;

/// Every kernel file.
pub const MODULES: &[&Module] = &[
    &crate::adamw::cuda::MODULE,
    &crate::ascent::cuda::MODULE,
    &crate::attention::cuda::LAST,
    &crate::attention::cuda::MODULE,
    &crate::bf16::cuda::MODULE,
    &crate::ci_mlp::cuda::MODULE,
    &crate::divergence::cuda::MODULE,
    &crate::embedding::cuda::MODULE,
    &crate::gelu::cuda::MODULE,
    &crate::importance_minimality::cuda::MODULE,
    &crate::layer_norm::cuda::MODULE,
    &crate::linear::cuda::MODULE,
    &crate::masked_site::cuda::MODULE,
    &crate::philox::cuda::MODULE,
    &crate::relu::cuda::MODULE,
    &crate::rows::cuda::MODULE,
    &crate::sequence::cuda::MODULE,
    &crate::sigmoid::cuda::MODULE,
    &crate::squared_error::cuda::MODULE,
    &crate::sum::cuda::MODULE,
    &crate::transpose::cuda::MODULE,
    &total::MODULE,
];

/// What files with products of matrices share.
pub(crate) const TILE: &str = include_str!("tile.cuh");

/// Threads of a block that shares out elements.
const BLOCK: u32 = 256;

/// Blocks that fill the largest device a few times over; more would only wait.
const MOST_BLOCKS: u32 = 4096;

/// Returns memory for `length` numbers; it holds arbitrary ones until a kernel has written them.
///
/// # Errors
/// The device's, if it has no memory left.
pub fn memory(device: &Handle, length: usize) -> Result<Memory, DriverError> {
    // SAFETY: every bit pattern is an f32. A device refuses to allocate nothing, so there is always an element.
    unsafe { device.alloc(length.max(1)) }.map(|memory| shortened(memory, length))
}

/// Returns `memory` as an array of `length` elements, which are not more than it has.
fn shortened<T>(memory: CudaSlice<T>, length: usize) -> CudaSlice<T> {
    let device = memory.device();
    // SAFETY: the allocation has at least `length` elements, and is given back whole whatever its length says.
    unsafe { device.upgrade_device_ptr(memory.leak(), length) }
}

/// Returns a new array with the given whole numbers.
///
/// # Errors
/// The device's.
pub fn upload_numbers(device: &Handle, numbers: &[u32]) -> Result<CudaSlice<u32>, DriverError> {
    // A device refuses to allocate nothing.
    let some = if numbers.is_empty() { &[0][..] } else { numbers };
    device.htod_sync_copy(some).map(|array| shortened(array, numbers.len()))
}

/// Returns a new array with the given numbers.
///
/// # Errors
/// The device's.
pub fn upload(device: &Handle, data: &[f32]) -> Result<Memory, DriverError> {
    let mut array = memory(device, data.len())?;
    if !data.is_empty() {
        device.htod_sync_copy_into(data, &mut array)?;
    }
    Ok(array)
}

/// Returns an array's numbers.
///
/// # Errors
/// The device's, also of a kernel that ran before.
pub fn download(array: &Memory) -> Result<Vec<f32>, DriverError> {
    let mut data = vec![0.0; length(array) as usize];
    if !data.is_empty() {
        array.device().dtoh_sync_copy_into(array, &mut data)?;
    }
    Ok(data)
}

/// Makes an array zeros.
///
/// # Errors
/// The device's.
pub fn clear(array: &mut Memory) -> Launched {
    if length(array) == 0 { Ok(()) } else { array.device().memset_zeros(array) }
}

/// Overwrites `to` with `from`, which is as long.
///
/// # Errors
/// The device's.
pub fn copy(from: &Memory, to: &mut Memory) -> Launched {
    assert_eq!(length(from), length(to), "copy: lengths");
    if length(from) == 0 { Ok(()) } else { from.device().dtod_copy(from, to) }
}

/// Overwrites `to` with the elements `span` of `from`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If they are not as many as `to` has.
pub fn copy_span(from: &Memory, span: std::ops::Range<usize>, to: &mut Memory) -> Launched {
    assert_eq!(length(to) as usize, span.len(), "copy: lengths");
    if span.is_empty() { Ok(()) } else { from.device().dtod_copy(&from.slice(span), to) }
}

/// Overwrites the elements `span` of `to` with `from`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If they are not as many as `from` has.
pub fn copy_into_span(from: &Memory, to: &mut Memory, span: std::ops::Range<usize>) -> Launched {
    assert_eq!(length(from) as usize, span.len(), "copy: lengths");
    if span.is_empty() { Ok(()) } else { from.device().dtod_copy(from, &mut to.slice_mut(span)) }
}

/// Returns what no two GPUs, nor parts of one, have in common, as hexadecimal digits.
///
/// # Errors
/// The driver's.
pub fn identity(device: &Handle) -> Result<String, DriverError> {
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: a place for an id, and the device is one that the driver gave.
    unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, *device.cu_device()) }.result()?;
    Ok(uuid.bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns an array's length as kernels count.
///
/// # Panics
/// If it has 2³¹ elements or more: indices in kernels have 32 bits.
pub(crate) fn length(array: &Memory) -> u32 {
    narrow(cudarc::driver::DeviceSlice::len(array))
}

/// Returns a size as kernels count.
pub(crate) fn narrow(size: usize) -> u32 {
    let fits = size < 1 << 31;
    assert!(fits, "an array on a GPU has fewer than 2^31 elements, this one {size}");
    size as u32
}

/// Returns the address of an array, or 0 for none, as kernels take it.
pub(crate) fn address(array: Option<&Memory>) -> u64 {
    array.map_or(0, |array| *array.device_ptr())
}

/// Returns the address of an array that a kernel writes, or 0 for none.
pub(crate) fn address_mut(array: Option<&mut Memory>) -> u64 {
    array.map_or(0, |array| *array.device_ptr())
}

/// Returns a grid for `FOR_EACH_FOUR` over `elements`, of which there is at least one.
pub(crate) fn in_fours(elements: u32) -> LaunchConfig {
    grid([elements.div_ceil(4 * BLOCK).min(MOST_BLOCKS), 1, 1], BLOCK)
}

/// Returns a grid of blocks with `threads` threads each.
pub(crate) fn grid([x, y, z]: [u32; 3], threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (x, y, z), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

impl crate::Store {
    /// Returns what kernels are told.
    pub(crate) fn flag(self) -> i32 {
        match self {
            Self::Write => 0,
            Self::Add => 1,
        }
    }
}
