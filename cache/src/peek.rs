//! More looks that change nothing (`inspect.rs`): at all records at once, and from behind the lock of garbage collection.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::blob::digest_file;
use crate::lease::GC_LOCK;
use crate::{Cache, CacheError, Digest, Record, RecordState};

/// A file of the cache that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untrusted {
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Cache {
    /// Keeps garbage collection from deleting anything while the result lives, without making the lock's file: where
    /// there is none, nothing was ever collected.
    ///
    /// # Errors
    /// [`CacheError`] if the lock cannot be taken.
    pub fn hold_existing(&self) -> Result<Option<File>, CacheError> {
        let path = self.root().join(GC_LOCK);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::io("lock", &path)(error)),
        };
        lock.lock_shared().map_err(CacheError::io("lock", &path))?;
        Ok(Some(lock))
    }

    /// Returns every record that can be trusted, in the order of fingerprints, and what lies among them that cannot.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn peek_all(&self) -> Result<(Vec<Record>, Vec<Untrusted>), CacheError> {
        let (mut records, mut untrusted) = (Vec::new(), Vec::new());
        for (path, fingerprint) in self.files("records", ".json")? {
            let Some(fingerprint) = fingerprint else {
                untrusted.push(Untrusted { path, reason: "its name is not that of a record".to_owned() });
                continue;
            };
            match self.inspect_record(&fingerprint)? {
                RecordState::Intact { record, .. } => records.push(*record),
                RecordState::Damaged { reason, .. } => untrusted.push(Untrusted { path, reason }),
                // Collected since the folder was listed.
                RecordState::Missing => {}
            }
        }
        Ok((records, untrusted))
    }

    /// Returns the digest and size that a blob's bytes really have; nothing if there is no such blob.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be read.
    pub fn digest_of_blob(&self, digest: &Digest) -> Result<Option<(Digest, u64)>, CacheError> {
        let path = self.blob_path(digest);
        match digest_file(&path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CacheError::io("read", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_cannot_be_trusted_is_told_and_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let record = crate::record::tests::example(&cache, Digest::of(b"key"));
        cache.put_record(&record).unwrap();
        let other = Digest::of(b"other");
        let path = cache.record_path(&other);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{}").unwrap();
        let stray = cache.root().join("records/notes.txt");
        fs::write(&stray, "").unwrap();
        let (records, untrusted) = cache.peek_all().unwrap();
        assert_eq!(records, [record]);
        let wrong = |path: &PathBuf, reason: &str| Untrusted { path: path.clone(), reason: reason.to_owned() };
        let mut expected = [wrong(&path, "it is cut short"), wrong(&stray, "its name is not that of a record")];
        expected.sort_by(|left, right| left.path.cmp(&right.path));
        assert_eq!(untrusted, expected);
        assert!(path.exists() && stray.exists());
        assert_eq!(fs::read_dir(cache.root().join("quarantine")).unwrap().count(), 0);
        assert_eq!(cache.digest_of_blob(&Digest::of(b"{}")).unwrap(), Some((Digest::of(b"{}"), 2)));
        assert_eq!(cache.digest_of_blob(&other).unwrap(), None);
    }

    #[test]
    fn a_lock_is_taken_where_there_is_one_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert!(cache.hold_existing().unwrap().is_none());
        assert!(!cache.root().join(GC_LOCK).exists());
        drop(cache.hold().unwrap());
        assert!(cache.hold_existing().unwrap().is_some());
    }
}
