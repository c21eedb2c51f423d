//! What a process needs of the cache, so that garbage collection beside it leaves that alone.
//!
//! A lease is a file of fingerprints, one a line, that its process keeps locked (`flock`, as in `work.rs`) for as long
//! as it lives. Garbage collection deletes only while it holds `gc.lock` exclusively, and reads every lease anew each
//! time it has taken it; a fingerprint is added under the shared lock. So once [`Lease::add`] has returned, nothing
//! that belongs to the fingerprint is deleted: what a look at the cache finds then is there to stay.
//!
//! Files that are stored before the record that names them are nobody's for a moment. Whoever stores them keeps the
//! shared lock ([`Cache::hold`]) until the record is written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{Cache, CacheError, Digest};

/// Keeps garbage collection from deleting anything while it lives.
#[derive(Debug)]
pub struct Hold {
    _lock: File,
}

/// A list of results that must stay, for as long as its process lives.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    file: Mutex<File>,
}

/// Where the leases of processes lie that are not runs.
pub(crate) const LEASES: &str = "leases";
/// The file whose lock keeps garbage collection and everybody else apart.
pub(crate) const GC_LOCK: &str = "gc.lock";

impl Cache {
    /// Waits until garbage collection does not delete, and keeps it from doing so.
    ///
    /// # Errors
    /// [`CacheError`] if the lock cannot be taken.
    pub fn hold(&self) -> Result<Hold, CacheError> {
        let (path, lock) = self.gc_lock()?;
        lock.lock_shared().map_err(CacheError::io("lock", &path))?;
        Ok(Hold { _lock: lock })
    }

    /// Waits until nobody holds the cache, and keeps everybody else from doing so.
    pub(crate) fn hold_alone(&self) -> Result<Hold, CacheError> {
        let (path, lock) = self.gc_lock()?;
        lock.lock().map_err(CacheError::io("lock", &path))?;
        Ok(Hold { _lock: lock })
    }

    fn gc_lock(&self) -> Result<(PathBuf, File), CacheError> {
        let path = self.root().join(GC_LOCK);
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let lock = opened.map_err(CacheError::io("lock", &path))?;
        Ok((path, lock))
    }

    /// Returns an empty lease for a process that is not a run.
    ///
    /// # Errors
    /// [`CacheError`] if its file cannot be written.
    pub fn lease(&self) -> Result<Lease, CacheError> {
        let folder = self.root().join(LEASES);
        fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        let name = self.temporary().file_name().map(PathBuf::from).unwrap_or_default();
        self.lease_at(&folder.join(name))
    }

    /// Returns an empty lease in this file.
    pub(crate) fn lease_at(&self, path: &Path) -> Result<Lease, CacheError> {
        // A file without a lock is one whose process is gone; it must not be taken for such a file before it is locked.
        let _hold = self.hold()?;
        let file = File::options().append(true).create_new(true).open(path).map_err(CacheError::io("create", path))?;
        file.lock().map_err(CacheError::io("lock", path))?;
        Ok(Lease { path: path.to_owned(), file: Mutex::new(file) })
    }
}

impl Lease {
    /// Keeps everything that belongs to these fingerprints, now or later.
    ///
    /// # Errors
    /// [`CacheError`] if the list cannot be written.
    pub fn add(&self, cache: &Cache, fingerprints: &[Digest]) -> Result<(), CacheError> {
        let hold = cache.hold()?;
        self.add_held(&hold, fingerprints)
    }

    /// As [`Lease::add`], for what was looked up while `hold` was kept.
    ///
    /// # Errors
    /// [`CacheError`] if the list cannot be written.
    pub fn add_held(&self, _hold: &Hold, fingerprints: &[Digest]) -> Result<(), CacheError> {
        let mut text = String::with_capacity(fingerprints.len() * (2 * size_of::<Digest>() + 1));
        for fingerprint in fingerprints {
            text.push_str(&fingerprint.hex());
            text.push('\n');
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes()).map_err(CacheError::io("write", &self.path))
    }
}

/// Returns whether the process of a lease lives.
pub(crate) fn is_held(path: &Path) -> Result<bool, CacheError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(CacheError::io("read", path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(CacheError::io("lock", path)(error)),
    }
}

/// Returns the fingerprints that a lease lists; a line that was cut short by a crash is not one.
pub(crate) fn listed(path: &Path) -> Result<Vec<Digest>, CacheError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(CacheError::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_it_is_dropped_and_lists_what_was_added() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let lease = cache.lease().unwrap();
        let digests = [b"a", b"b", b"c"].map(|name| Digest::of(name));
        lease.add(&cache, &digests[..1]).unwrap();
        lease.add(&cache, &digests[1..]).unwrap();
        let path = lease.path.clone();
        assert!(is_held(&path).unwrap());
        drop(lease);
        assert!(!is_held(&path).unwrap());
        assert_eq!(listed(&path).unwrap(), digests);
        fs::write(&path, &format!("{}\n{}", digests[0], digests[1])[..100]).unwrap();
        assert_eq!(listed(&path).unwrap(), digests[..1]);
    }

    #[test]
    fn many_hold_the_cache_at_once_and_one_holds_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let (first, second) = (cache.hold().unwrap(), cache.hold().unwrap());
        std::thread::scope(|scope| {
            let alone = scope.spawn(|| cache.hold_alone().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(30));
            assert!(!alone.is_finished());
            drop((first, second));
            drop(alone.join().unwrap());
        });
        drop(cache.hold().unwrap());
    }
}
