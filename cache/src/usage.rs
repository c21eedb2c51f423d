//! What lies in a cache and how much room it takes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::store::FOLDERS;
use crate::{Cache, CacheError, Digest, Record, Stamp};

/// How much room one of the cache's folders takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderUsage {
    /// Its name: `blobs`, `records`, ….
    pub folder: &'static str,
    /// How many files it holds.
    pub files: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

/// A result that the cache has a record of.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownResult {
    /// The record.
    pub record: Record,
    /// When it was made or a run last relied on it, in nanoseconds since 1970.
    pub last_use: i64,
    /// Whether every blob is present.
    pub is_whole: bool,
}

impl Cache {
    /// Returns how much room each folder takes.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn usage(&self) -> Result<Vec<FolderUsage>, CacheError> {
        let of = |folder| {
            let (files, size_bytes) = weigh(&self.root().join(folder))?;
            Ok(FolderUsage { folder, files, size_bytes })
        };
        FOLDERS.into_iter().map(of).collect()
    }

    /// Returns every result whose record can be trusted, the one that was used longest ago first.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn results(&self) -> Result<Vec<KnownResult>, CacheError> {
        let uses = self.last_uses()?;
        let mut results = Vec::new();
        for (path, fingerprint) in self.files("records", ".json")? {
            let Some(fingerprint) = fingerprint else { continue };
            let Some(Ok(record)) = self.peek_record(&fingerprint)? else { continue };
            let made = fs::metadata(path).map_or(0, |metadata| Stamp::of(&metadata).modified);
            let last_use = made.max(uses.get(&fingerprint).copied().unwrap_or(0));
            let is_whole =
                record.artifact.outputs.iter().all(|output| self.has_blob(&output.digest, output.size_bytes));
            results.push(KnownResult { record, last_use, is_whole });
        }
        results.sort_by_key(|result| (result.last_use, result.record.fingerprint));
        Ok(results)
    }

    /// Returns when a run last relied on each fingerprint.
    pub(crate) fn last_uses(&self) -> Result<BTreeMap<Digest, i64>, CacheError> {
        let mut uses = BTreeMap::new();
        for run in self.runs()? {
            let last = run.last_use();
            for fingerprint in run.results()? {
                let known = uses.entry(fingerprint).or_insert(last);
                *known = last.max(*known);
            }
        }
        Ok(uses)
    }
}

/// Returns how many files lie below a folder and how many bytes they have; what goes away meanwhile does not count.
pub(crate) fn weigh(path: &Path) -> Result<(u64, u64), CacheError> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let (mut files, mut size_bytes) = (0, 0);
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(CacheError::io("read", &path)(error)),
        };
        if !metadata.is_dir() {
            files += 1;
            size_bytes += metadata.len();
            continue;
        }
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(CacheError::io("read", &path)(error)),
        };
        for entry in entries {
            open.push(entry.map_err(CacheError::io("read", &path))?.path());
        }
    }
    Ok((files, size_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_room_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let record = crate::record::tests::example(&cache, Digest::of(b"key"));
        cache.put_record(&record).unwrap();
        let blobs = FolderUsage { folder: "blobs", files: 2, size_bytes: 4 };
        assert_eq!(cache.usage().unwrap()[0], blobs);
        let results = cache.results().unwrap();
        assert_eq!((results.len(), &results[0].record, results[0].is_whole), (1, &record, true));
        fs::remove_file(cache.blob_path(&record.artifact.outputs[0].digest)).unwrap();
        assert!(!cache.results().unwrap()[0].is_whole);
    }
}
