//! Why a plan or a run could not be made at all. A stage that fails is not such an error: it is an outcome.

use std::path::PathBuf;

use spdflow_cache::CacheError;
use spdflow_cache::remote::RemoteError;

use crate::diagnostic::Report;
use crate::lock::Drift;

/// Why a plan or a run was given up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cache, or the folder for results, cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The remote cannot be used. Not of runs, which go on without it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The place of a result is taken by something that is not a result.
    #[error("the result of `{instance}` belongs at `{}`, but something that spdflow did not make is there", path.display())]
    OutputTaken {
        /// The instance.
        instance: String,
        /// The place.
        path: PathBuf,
    },
    /// A stage that is to run alone needs a result that is not known.
    #[error("stage `{instance}` cannot run alone: it needs the result of `{input}`, which is not in the cache ({why})")]
    InputUnknown {
        /// The instance.
        instance: String,
        /// The instance whose result it needs.
        input: String,
        /// Why that is not known.
        why: String,
    },
    /// A stage asks for more than the run has.
    #[error("{0}")]
    TooLarge(Box<Report>),
    /// A key or a result is not the one that the lock file says.
    #[error("{0}; nothing was put in its place")]
    Drift(Drift),
    /// A result that was just computed was damaged in the cache, again and again.
    #[error("the result of `{instance}` is damaged in the cache each time it is computed; is the disk failing?")]
    KeepsBreaking {
        /// The instance.
        instance: String,
    },
}

impl RunError {
    /// Returns what to do about it, when we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Cache(error) => error.hint(),
            Self::Remote(error) => error.hint(),
            Self::OutputTaken { .. } => Some("move it away, or choose another folder with `--out DIR`".to_owned()),
            Self::InputUnknown { instance, .. } => Some(format!(
                "name it as a target instead of with `--only`, and what it needs runs first: `{instance}`"
            )),
            // The report has hints of its own.
            Self::TooLarge(_) => None,
            Self::Drift(Drift::OtherBytes { .. }) => Some(
                "the same inputs made other bytes: another processor level, program version, or something that is not \
                 reproducible; `spdflow show` tells by what the locked result was made"
                    .to_owned(),
            ),
            Self::Drift(_) => Some("`spdflow plan` says what changed".to_owned()),
            Self::KeepsBreaking { .. } => Some("choose a cache on another disk with `--cache DIR`".to_owned()),
        }
    }
}
