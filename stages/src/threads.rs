//! The device and the threads a stage may use.

use dfdx::prelude::Cpu;
use spdflow_engine::kind::{Device, Kind, StageContext, StageError, Summary};

use crate::bridge::Backend;

/// A kind whose work is the same on every device.
pub(crate) trait OnDevice: Kind<Params: Sync> {
    /// Computes the stage.
    fn run_on<D: Backend>(device: &D, params: &Self::Params, context: &StageContext<'_>)
    -> Result<Summary, StageError>;
}

/// Computes a stage on the device that the user chose, with the threads that it may use.
///
/// # Errors
/// Those of the kind; [`StageError::Failed`] if this build or this machine cannot use the device, or the system gives no
/// threads.
pub(crate) fn on_device<K: OnDevice>(params: &K::Params, context: &StageContext<'_>) -> Result<Summary, StageError> {
    match context.device {
        Device::Cpu => with_threads(context.threads, || K::run_on(&Cpu::default(), params, context))?,
        #[cfg(feature = "cuda")]
        Device::Cuda(ordinal) => crate::bridge::on_gpu(ordinal, |device| K::run_on(device, params, context))
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
