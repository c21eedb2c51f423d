//! The threads a stage may use.

use spdflow_engine::kind::StageError;

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
