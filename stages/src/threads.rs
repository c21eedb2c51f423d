//! The device and the threads a stage may use.

use dfdx::prelude::Cpu;
use spdflow_engine::kind::{Device, StageContext, StageError};

use crate::bridge::Backend;

/// Something to do on whatever device there is.
pub(crate) trait DeviceWork: Send {
    /// What comes of it.
    type Output: Send;

    /// Does it.
    fn run<D: Backend>(self, device: &D) -> Result<Self::Output, StageError>;
}

/// Returns what `work` makes on the device that the user chose, with the threads that the stage may use.
///
/// # Errors
/// Those of `work`; [`StageError::Failed`] if this build or this machine cannot use the device, or the system gives no
/// threads.
pub(crate) fn on_device<W: DeviceWork>(context: &StageContext<'_>, work: W) -> Result<W::Output, StageError> {
    match context.device {
        Device::Cpu => with_threads(context.threads, || work.run(&Cpu::default()))?,
        #[cfg(feature = "cuda")]
        Device::Cuda(ordinal) => crate::bridge::on_gpu(ordinal, |device| work.run(device))
            .map_err(|error| StageError::failed_with_hint(error.message, error.hint))?,
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => Err(StageError::failed_with_hint(
            "this build of spdflow has no CUDA support",
            "leave out `--device`, or use `--device cpu`; building with `--features cuda` adds it",
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
