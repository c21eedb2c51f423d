//! What can be wrong with a cache folder, worded once.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::CACHE_FORMAT;

/// The cache cannot be used. Nothing that was stored before is lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The path is taken by something that is not a folder.
    #[error("the cache `{}` is not a folder", path.display())]
    NotAFolder {
        /// The path given as the cache.
        path: PathBuf,
    },
    /// The folder holds other things and no `VERSION` of ours.
    #[error("the folder `{}` is not a spdflow cache: it holds `{found}` but no `VERSION`", path.display())]
    Foreign {
        /// The path given as the cache.
        path: PathBuf,
        /// The first thing found in it.
        found: String,
    },
    /// The folder's `VERSION` is not one of ours.
    #[error("the file `{}` is not the version of a spdflow cache: expected `spdflow-cache {CACHE_FORMAT}`, found `{found}`", path.display())]
    BadVersion {
        /// The version file.
        path: PathBuf,
        /// Its first line.
        found: String,
    },
    /// The cache was written by a later spdflow.
    #[error("the cache `{}` has format {found}, but this spdflow reads format {CACHE_FORMAT}", path.display())]
    Newer {
        /// The cache.
        path: PathBuf,
        /// The format it says it has.
        found: u32,
    },
    /// The disk, or the user's share of it, is full.
    #[error("no space left while trying to {action} `{}`", path.display())]
    Full {
        /// "write", "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file or folder may not be read or written.
    #[error("no permission to {action} `{}`: {source}", path.display())]
    Denied {
        /// "read", "write", "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else the system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// "read", "write", "create", "lock".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CacheError {
    /// Returns an adaptor for `map_err` on file operations, which recognises a full disk and missing permissions.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { action, path }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { action, path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Returns what to do about it, when we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotAFolder { .. } | Self::Foreign { .. } => {
                Some("name an empty or new folder with `--cache DIR` or `SPDFLOW_CACHE`".to_owned())
            }
            Self::BadVersion { .. } => {
                Some("if the folder is a cache, restore the file; else choose another with `--cache DIR`".to_owned())
            }
            Self::Newer { .. } => Some("use a newer spdflow, or another cache with `--cache DIR`".to_owned()),
            Self::Full { .. } => {
                Some("free some space and run again: finished stages and checkpoints are kept".to_owned())
            }
            Self::Denied { action: "read", .. } => {
                Some("allow yourself to read it, or choose another cache with `--cache DIR`".to_owned())
            }
            Self::Denied { .. } => {
                Some("choose a folder you may write to with `--cache DIR` or `--out DIR`".to_owned())
            }
            Self::Io { .. } => None,
        }
    }
}
