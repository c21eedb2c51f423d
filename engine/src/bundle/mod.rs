//! Bundles: one file with everything that is known of a pipeline's results, for somebody who has nothing else.
//!
//! A bundle is a tar archive, compressed with Zstandard, whose first file, `bundle.json`, says what the others are
//! (`manifest.rs`); `docs/cache-format.md` describes all of it. [`pack`] makes one of a cache, of which it changes nothing;
//! equal results make equal bundles, byte by byte. [`unpack`] believes nothing that it has not checked.

mod blobs;
mod describe;
mod entries;
mod manifest;
mod pack;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

use spdflow_cache::CacheError;

pub(crate) use blobs::{blobs_of, open_blob, sums_of_blobs};
pub use manifest::{Arguments, FileEntry, LeftOut, MANIFEST, Manifest};
pub use pack::{Packed, Packing, pack};
pub use unpack::{Problem, Unpacked, unpack};

/// The end of a bundle's name.
pub const ENDING: &str = ".spdflow.tar.zst";

/// Why a bundle cannot be made or read at all.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A blob of the cache holds other bytes than its name says.
    #[error("the file `{output}` of `{instance}` is damaged in the cache: `{}` has other bytes than its name says", path.display())]
    DamagedBlob {
        /// The instance.
        instance: String,
        /// The output.
        output: String,
        /// Where it lies.
        path: PathBuf,
    },
    /// A file cannot have this name in a bundle.
    #[error("the file `{}` cannot be bundled: its name is not UTF-8 text, or holds a backslash", path.display())]
    Name {
        /// Where it lies.
        path: PathBuf,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// "read", "write", "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder for a bundle's files holds something.
    #[error("the folder `{}` is not empty: a bundle is unpacked into a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The file is no bundle.
    #[error("`{}` is no bundle: {reason}", path.display())]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The archive is cut short or was changed.
    #[error("`{}` is damaged after `{after}`: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The last file in it that could be read.
        after: String,
        /// What is wrong.
        reason: String,
    },
    /// The archive holds something that no bundle holds, and that could do harm.
    #[error("`{}` is not unpacked: its entry `{entry}` {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is more in it than it says.
    #[error("`{}` is not unpacked: after `{after}` it holds more than the {declared_bytes} bytes that its `{MANIFEST}` allows", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The last entry that was looked at.
        after: String,
        /// How many bytes it says it has.
        declared_bytes: u64,
    },
    /// The disk has too little room for what it says it holds.
    #[error("`{}` holds {declared_bytes} bytes, but `{}` has room for {free_bytes}", path.display(), folder.display())]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Where it was to be unpacked.
        folder: PathBuf,
        /// How many bytes it says it has.
        declared_bytes: u64,
        /// How many the disk can take.
        free_bytes: u64,
    },
}

impl BundleError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Returns what to do about it, when we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Cache(error) => error.hint(),
            Self::DamagedBlob { .. } => {
                Some("`spdflow cache verify` puts it aside, then `spdflow run` makes it anew".to_owned())
            }
            Self::NotABundle { .. } => Some("bundles are made by `spdflow bundle`".to_owned()),
            Self::Damaged { .. } | Self::Refused { .. } | Self::TooLarge { .. } => {
                Some("get it again from where it came from; nothing of it was kept".to_owned())
            }
            Self::NoRoom { .. } => Some("choose a folder on another disk".to_owned()),
            Self::NotEmpty { .. } | Self::Name { .. } | Self::Io { .. } => None,
        }
    }
}
