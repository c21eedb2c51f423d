//! Runs a stage's work on as many threads as it was given.

use spdflow_engine::kind::StageError;

/// Calls `work` where parallel loops use `threads` threads.
///
/// # Errors
/// [`StageError::Failed`] if the threads cannot be started.
pub(crate) fn with_threads<T: Send>(
    threads: usize,
    work: impl FnOnce() -> Result<T, StageError> + Send,
) -> Result<T, StageError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| StageError::failed(format!("cannot start {threads} threads: {error}")))?;
    pool.install(work)
}
