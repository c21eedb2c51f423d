//! The device and the threads a stage may use.

use dfdx::prelude::Cpu;
use spdflow_engine::kind::{Device, StageContext, StageError};

/// Returns what `work` returns on the device that the user chose, with the threads that the stage may use.
///
/// # Errors
/// Those of `work`; [`StageError::Failed`] if this build cannot use the device or the system gives no threads.
pub(crate) fn on_device<T: Send>(
    context: &StageContext<'_>,
    work: impl FnOnce(&Cpu) -> Result<T, StageError> + Send,
) -> Result<T, StageError> {
    match context.device {
        Device::Cpu => with_threads(context.threads, || work(&Cpu::default()))?,
        Device::Cuda(_) => Err(StageError::failed_with_hint(
            "this build of spdflow has no CUDA support",
            "leave out `--device`, or use `--device cpu`",
        )),
    }
}

/// Returns what `work` returns; parallel iterators inside it use at most `threads` threads.
///
/// # Errors
/// [`StageError::Failed`] if the system gives no threads.
pub(crate) fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, StageError> {
    spdflow_kernels::memory::keep_freed_memory();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| StageError::failed(format!("cannot start {threads} threads: {error}")))?;
    Ok(pool.install(work))
}
