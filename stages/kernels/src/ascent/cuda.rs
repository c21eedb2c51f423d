//! Launches of `ascent.cu`.

use cudarc::driver::LaunchAsync;

use crate::cuda::{Launched, Memory, Module, function, in_fours, length};

pub(crate) const MODULE: Module =
    Module { name: "ascent", needs: &[], text: include_str!("ascent.cu"), kernels: &["ascend"] };

/// As [`super::ascend`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ.
pub fn ascend(sources: &Memory, gradient: &Memory, step: f32, out: &mut Memory) -> Launched {
    let n = length(sources);
    assert_eq!((n, n), (length(gradient), length(out)), "ascent: sources and their gradient");
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&sources.device(), &MODULE, "ascend");
    // SAFETY: all arrays have n elements.
    unsafe { kernel.launch(in_fours(n), (sources, gradient, step, out, n)) }
}
