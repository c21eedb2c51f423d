//! Deletes what was found to be garbage, a little at a time, so that a run beside it waits for milliseconds at most.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Class, Collected, FileItem, Garbage, Item, Tally, WorkItem};
use crate::work::is_still_at;
use crate::{Cache, CacheError, Stamp};

/// How many files are deleted before others may go on.
const BATCH: usize = 256;

/// How long others have to take the lock between two batches.
const PAUSE: Duration = Duration::from_millis(2);

impl Cache {
    /// Deletes the garbage, except for what has come into use or has changed since it was found.
    ///
    /// May be killed at any instant: what is left is a cache, and garbage for the next collection.
    ///
    /// # Errors
    /// [`CacheError`] if something cannot be deleted.
    pub fn collect(&self, garbage: Garbage) -> Result<Collected, CacheError> {
        let Garbage { records, blobs, work, files, mut watch, .. } = garbage;
        let (mut tally, mut spared) = (Tally::default(), 0);
        // Records before blobs: a reader that still sees a record may still rely on its blobs.
        for batch in records.chunks(BATCH) {
            let _hold = self.hold_alone()?;
            watch.refresh(self)?;
            for Item { digest, stamp, class } in batch {
                let is_needed = *class == Class::Results && watch.results.contains(digest);
                if is_needed || self.record_stamp(digest) != Some(*stamp) {
                    if let Some(Ok(record)) = self.peek_record(digest)? {
                        watch.blobs.extend(record.blobs());
                        spared += 1;
                    }
                    continue;
                }
                if remove_file(&self.record_path(digest))? {
                    tally.add(*class, 1, stamp.size_bytes);
                }
            }
            drop(_hold);
            std::thread::sleep(PAUSE);
        }
        for batch in blobs.chunks(BATCH) {
            let _hold = self.hold_alone()?;
            watch.refresh(self)?;
            for Item { digest, stamp, class } in batch {
                if watch.blobs.contains(digest) || self.blob_stamp(digest) != Some(*stamp) {
                    spared += u64::from(self.blob_stamp(digest).is_some());
                } else if remove_file(&self.blob_path(digest))? {
                    // Of results, the records are counted.
                    tally.add(*class, u64::from(*class == Class::OrphanBlobs), stamp.size_bytes);
                }
            }
            drop(_hold);
            std::thread::sleep(PAUSE);
        }
        for item in &work {
            let _hold = self.hold_alone()?;
            watch.refresh(self)?;
            let is_needed = item.fingerprint.is_some_and(|fingerprint| {
                watch.results.contains(&fingerprint) && self.record_stamp(&fingerprint).is_none()
            });
            if is_needed || !remove_work(item)? {
                spared += 1;
            } else {
                tally.add(Class::WorkFolders, 1, item.size_bytes);
            }
        }
        for FileItem { path, stamp, class } in &files {
            let is_same = fs::symlink_metadata(path).is_ok_and(|metadata| Stamp::of(&metadata) == *stamp);
            if is_same && remove_file(path)? {
                tally.add(*class, 1, stamp.size_bytes);
            }
        }
        Ok(Collected { classes: tally.classes(), spared })
    }
}

/// Removes a work folder unless somebody holds its lock; says whether it did.
fn remove_work(item: &WorkItem) -> Result<bool, CacheError> {
    let path = item.path.join("lock");
    let lock = match File::open(&path) {
        Ok(lock) => Some(lock),
        // Nobody has ever computed here, or its holder has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(CacheError::io("read", &path)(error)),
    };
    if lock.as_ref().is_some_and(|lock| lock.try_lock().is_err() || !is_still_at(lock, &path)) {
        return Ok(false);
    }
    // The lock's file goes last: until then nobody else can hold it.
    for entry in fs::read_dir(&item.path).into_iter().flatten().flatten().filter(|entry| entry.file_name() != "lock") {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let removed = fs::remove_dir_all(&path);
            removed.or_else(not_there).map_err(CacheError::io("write", &path))?;
        } else {
            remove_file(&path)?;
        }
    }
    remove_file(&path)?;
    match fs::remove_dir(&item.path) {
        // Somebody who waited has already put a new lock there.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(CacheError::io("write", &item.path)(error))
        }
        _ => Ok(true),
    }
}

fn not_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Returns whether the file was there.
fn remove_file(path: &Path) -> Result<bool, CacheError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CacheError::io("write", path)(error)),
    }
}
