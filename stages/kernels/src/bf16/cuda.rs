//! Launches of `bf16.cu`.

use cudarc::driver::LaunchAsync;

use crate::Store;
use crate::cuda::{Launched, Memory, Module, function, in_fours, length};

pub(crate) const MODULE: Module =
    Module { name: "bf16", needs: &[], text: include_str!("bf16.cu"), kernels: &["bf16_round"] };

/// Stores every number rounded: [`super::forward`] and [`super::backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn round(x: &Memory, out: &mut Memory, store: Store) -> Launched {
    let n = length(x);
    assert_eq!(n, length(out), "bf16: lengths of input and output");
    if n == 0 {
        return Ok(());
    }
    // SAFETY: both arrays have n elements.
    unsafe { function(&x.device(), &MODULE, "bf16_round").launch(in_fours(n), (x, out, n, store.flag())) }
}
