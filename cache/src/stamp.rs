//! What the file system says of a file without reading it.
//!
//! Equal stamps mean equal bytes, with one exception: a change within the clock tick of the stamp leaves the stamp
//! as it was. So a stamp may be trusted only when it was already old when it was taken ([`Stamp::is_settled`]), the
//! rule git calls "racily clean". Device, inode and change time are part of it: `cp -p` and `touch -d` fool
//! a stamp of size and modification time, but nobody can set a change time.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Identity, size and times of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Size in bytes; 0 for a folder.
    pub size_bytes: u64,
    /// Modification time in nanoseconds since 1970.
    pub modified: i64,
    /// Change time in nanoseconds since 1970.
    pub changed: i64,
}

/// Older than this, a stamp cannot hide a later change, even on a file system that counts in whole seconds.
const RACY_NANOSECONDS: i64 = 2_000_000_000;

impl Stamp {
    /// Returns the stamp of what `metadata` describes.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: if metadata.is_dir() { 0 } else { metadata.size() },
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns whether the stamp, taken at `now`, would show every later change.
    #[must_use]
    pub fn is_settled(&self, now: i64) -> bool {
        self.modified.max(self.changed) < now - RACY_NANOSECONDS
    }

    /// Returns the present in the unit of stamps.
    #[must_use]
    pub fn now() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}
