//! Launches of `philox.cu`.

use cudarc::driver::{CudaSlice, DeviceRepr, DeviceSlice, LaunchAsync};

use super::Stream;
use crate::cuda::{Launched, Memory, Module, function, grid, length, narrow};

pub(crate) const MODULE: Module =
    Module { name: "philox", needs: &[], text: include_str!("philox.cu"), kernels: &["uniform"] };

/// A stream as kernels take it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arguments {
    key: [u32; 2],
    step: u32,
}

// SAFETY: it has the layout of `struct Stream` in `common.cuh`: three numbers of 32 bits.
unsafe impl DeviceRepr for Arguments {}

impl From<Stream> for Arguments {
    fn from(stream: Stream) -> Self {
        Self { key: stream.key(), step: stream.step }
    }
}

/// As [`super::uniform`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If `out` does not have `features * rows.len()` elements.
pub fn uniform(stream: Stream, features: usize, rows: &CudaSlice<u32>, out: &mut Memory) -> Launched {
    assert_eq!(length(out) as usize, features * rows.len(), "uniform draws: [{features}, {}]", rows.len());
    if length(out) == 0 {
        return Ok(());
    }
    let (features, count) = (narrow(features), narrow(rows.len()));
    let kernel = function(&out.device(), &MODULE, "uniform");
    let blocks = grid([count.div_ceil(64), features.div_ceil(16), 1], 256);
    // SAFETY: there are `count` row numbers and `features · count` results.
    unsafe { kernel.launch(blocks, (Arguments::from(stream), rows, count, features, out)) }
}
