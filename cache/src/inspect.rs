//! Looks at what a cache holds without changing anything: damaged files stay where they are, and it is said how they are
//! damaged.
//!
//! A file whose bytes are wrong although nobody wrote to it since it was made has rotten; one that was written to later was
//! edited. What tells the two apart is the modification time, so somebody who sets that can make an edit look like rot,
//! but neither look intact.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::blob::digest_opened;
use crate::record::unseal;
use crate::{Cache, CacheError, Digest, Record, Stamp};

/// How a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// It has the bytes it should have.
    Intact,
    /// It is not there.
    Missing,
    /// It is shorter than it should be.
    Truncated {
        /// Its size now.
        size_bytes: u64,
    },
    /// Its bytes are wrong, and it was not written to since it was made.
    Rotten,
    /// Its bytes are wrong, and it was written to after it was made.
    Edited,
    /// It cannot be read.
    Unreadable {
        /// What the system said.
        reason: String,
    },
}

/// How a record is.
#[derive(Debug)]
pub enum RecordState {
    /// It can be trusted as far as its seal goes.
    Intact {
        /// The record.
        record: Box<Record>,
        /// The digest of its file.
        digest: Digest,
        /// The stamp of its file.
        stamp: Stamp,
    },
    /// There is none.
    Missing,
    /// It cannot be trusted.
    Damaged {
        /// What is wrong with it.
        reason: String,
        /// Whether it is shorter than a record can be, and not merely wrong.
        is_truncated: bool,
        /// The stamp of its file.
        stamp: Stamp,
    },
}

/// Clocks and file systems round times.
const SLACK_NANOSECONDS: i64 = 2_000_000_000;

/// Looks at a file that should have these bytes; `made` is when it was made at the latest, in the unit of stamps. Also
/// returns how many bytes were read.
#[must_use]
pub fn inspect_file(path: &Path, digest: &Digest, size_bytes: u64, made: Option<i64>) -> (FileState, u64) {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileState::Missing,
        // What it says of a link that is not to be followed.
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            FileState::Unreadable { reason: "it is not a file".to_owned() }
        }
        _ => FileState::Unreadable { reason: error.to_string() },
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags.bits() as i32).open(path);
    let read = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match read {
        Ok((metadata, file)) if metadata.is_file() => (metadata, file),
        Ok(_) => return (FileState::Unreadable { reason: "it is not a file".to_owned() }, 0),
        Err(error) => return (unreadable(error), 0),
    };
    if metadata.len() < size_bytes {
        return (FileState::Truncated { size_bytes: metadata.len() }, 0);
    }
    let wrong = || {
        let is_edited = made.is_some_and(|made| Stamp::of(&metadata).modified > made.saturating_add(SLACK_NANOSECONDS));
        if is_edited { FileState::Edited } else { FileState::Rotten }
    };
    if metadata.len() > size_bytes {
        return (wrong(), 0);
    }
    match digest_opened(&file) {
        Ok((found, read)) if found == *digest => (FileState::Intact, read),
        Ok((_, read)) => (wrong(), read),
        Err(error) => (unreadable(error), 0),
    }
}

impl Cache {
    /// Opens the cache in `root` to look at it: where there is none, none is made.
    ///
    /// # Errors
    /// [`CacheError`] if there is no cache that can be read.
    pub fn open_existing(root: &Path) -> Result<Self, CacheError> {
        if !root.join("VERSION").is_file() {
            let source = io::Error::new(io::ErrorKind::NotFound, "there is no cache");
            return Err(CacheError::io("read", root)(source));
        }
        Self::open(root)
    }

    /// Reads a record and leaves it where it is, whatever is wrong with it.
    ///
    /// # Errors
    /// [`CacheError`] if it is there and cannot be read.
    pub fn inspect_record(&self, fingerprint: &Digest) -> Result<RecordState, CacheError> {
        let path = self.record_path(fingerprint);
        let read = fs::read(&path).and_then(|bytes| Ok((bytes, Stamp::of(&fs::metadata(&path)?))));
        let (bytes, stamp) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RecordState::Missing),
            Err(error) => return Err(CacheError::io("read", &path)(error)),
        };
        Ok(match unseal(&bytes, fingerprint) {
            Ok(record) => RecordState::Intact { record: Box::new(record), digest: Digest::of(&bytes), stamp },
            Err(reason) => RecordState::Damaged { reason, is_truncated: !bytes.ends_with(b"}\n"), stamp },
        })
    }

    /// Copies a result from another cache, which is left as it is, damaged files included: record and blobs are checked on
    /// the way.
    ///
    /// # Errors
    /// [`CacheError`] if something is missing, damaged, or cannot be copied.
    pub fn import(&self, from: &Self, record: &Record) -> Result<(), CacheError> {
        let damaged = |path: &Path, state: &FileState| {
            let source = io::Error::other(format!("it is not as it was made ({state:?})"));
            CacheError::io("read", path)(source)
        };
        for output in &record.artifact.outputs {
            let source = from.blob_path(&output.digest);
            let (state, _) = inspect_file(&source, &output.digest, output.size_bytes, None);
            if state != FileState::Intact {
                return Err(damaged(&source, &state));
            }
            self.store_file(&source)?;
        }
        // The log stays behind: nothing is computed from it.
        self.put_record(&Record { log: None, ..record.clone() })
    }

    /// Looks at a blob that belongs to a record whose file has this stamp. Also returns how many bytes were read.
    #[must_use]
    pub fn inspect_blob(&self, digest: &Digest, size_bytes: u64, record: &Stamp) -> (FileState, u64) {
        // A blob is there before the record that names it.
        inspect_file(&self.blob_path(digest), digest, size_bytes, Some(record.modified))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::record::tests::example;

    /// Writes what `change` makes of the file's bytes, and gives it the time it had, or a later one.
    fn damage(path: &Path, is_later: bool, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        let before = fs::metadata(path).unwrap().modified().unwrap();
        change(&mut bytes);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path, bytes).unwrap();
        let time = if is_later { SystemTime::now() + Duration::from_secs(60) } else { before };
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_blob_is_missing_truncated_rotten_or_edited() {
        let states = |change: fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            let cache = Cache::open(dir.path()).unwrap();
            let record = example(&cache, Digest::of(b"key"));
            cache.put_record(&record).unwrap();
            let output = &record.artifact.outputs[0];
            change(&cache.blob_path(&output.digest));
            let stamp = cache.record_stamp(&record.fingerprint).unwrap();
            let state = cache.inspect_blob(&output.digest, output.size_bytes, &stamp).0;
            assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 0);
            state
        };
        assert_eq!(states(|_| ()), FileState::Intact);
        assert_eq!(states(|path| fs::remove_file(path).unwrap()), FileState::Missing);
        assert_eq!(
            states(|path| damage(path, true, |bytes| bytes.truncate(1))),
            FileState::Truncated { size_bytes: 1 }
        );
        assert_eq!(states(|path| damage(path, false, |bytes| bytes[0] ^= 1)), FileState::Rotten);
        assert_eq!(states(|path| damage(path, true, |bytes| bytes[0] ^= 1)), FileState::Edited);
        assert_eq!(states(|path| damage(path, true, |bytes| bytes.push(0))), FileState::Edited);
        let folder = |path: &Path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        };
        assert_eq!(states(folder), FileState::Unreadable { reason: "it is not a file".to_owned() });
    }

    #[test]
    fn a_damaged_record_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let record = example(&cache, Digest::of(b"key"));
        assert!(matches!(cache.inspect_record(&record.fingerprint).unwrap(), RecordState::Missing));
        cache.put_record(&record).unwrap();
        let path = cache.record_path(&record.fingerprint);
        let RecordState::Intact { digest, .. } = cache.inspect_record(&record.fingerprint).unwrap() else {
            panic!("intact")
        };
        assert_eq!(Some(digest), cache.record_digest(&record.fingerprint).unwrap());
        let state = || match cache.inspect_record(&record.fingerprint).unwrap() {
            RecordState::Damaged { is_truncated, .. } => Some(is_truncated),
            _ => None,
        };
        damage(&path, true, |bytes| bytes[200] ^= 4);
        assert_eq!(state(), Some(false));
        damage(&path, true, |bytes| bytes.truncate(300));
        assert_eq!(state(), Some(true));
        assert!(path.exists());
    }

    #[test]
    fn opening_to_look_makes_no_cache() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cache");
        assert!(Cache::open_existing(&root).is_err());
        assert!(!root.exists());
        Cache::open(&root).unwrap();
        Cache::open_existing(&root).unwrap();
    }
}
