//! Launches of `transpose.cu`.

use cudarc::driver::LaunchAsync;

use crate::Store;
use crate::cuda::{Launched, Memory, Module, function, grid, length, narrow};

pub(crate) const MODULE: Module =
    Module { name: "transpose", needs: &[], text: include_str!("transpose.cu"), kernels: &["transpose"] };

/// As [`super::transpose`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length is not `rows * cols`.
pub fn transpose(matrix: &Memory, rows: usize, cols: usize, out: &mut Memory, store: Store) -> Launched {
    let n = narrow(rows * cols);
    assert_eq!((length(matrix), length(out)), (n, n), "transpose: a matrix [{rows}, {cols}]");
    if n == 0 {
        return Ok(());
    }
    let (rows, cols) = (narrow(rows), narrow(cols));
    let blocks = grid([cols.div_ceil(32), rows.div_ceil(32), 1], 256);
    let kernel = function(&matrix.device(), &MODULE, "transpose");
    // SAFETY: both arrays have rows · cols elements.
    unsafe { kernel.launch(blocks, (matrix, out, rows, cols, store.flag())) }
}
