//! Who needs what, while time goes on.
//!
//! When a collection begins, every lease is looked at once: those of processes that live, of pinned and of last runs
//! are roots, the others are of no account, and neither kind can become the other. Leases of living processes, and all
//! that appear later, are read again before every deletion, under the lock that keeps them from growing meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::Keep;
use crate::lease::{LEASES, is_held, listed};
use crate::run_folder::RESULTS;
use crate::verify::list;
use crate::{Cache, CacheError, Digest, Stamp};

/// The roots of a collection.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Leases that need not be read again.
    settled: BTreeSet<PathBuf>,
    pub(super) results: BTreeSet<Digest>,
    pub(super) blobs: BTreeSet<Digest>,
    /// The records of results that living processes need, as they were when their blobs were noted.
    records: BTreeMap<Digest, Stamp>,
    /// Leases of processes that are gone.
    pub(super) left: Vec<PathBuf>,
}

impl Watch {
    /// Looks at every lease. The caller holds the cache alone.
    pub(super) fn begin(cache: &Cache, keep: &Keep) -> Result<Self, CacheError> {
        let mut watch = Self { results: keep.results.clone(), blobs: keep.blobs.clone(), ..Self::default() };
        let runs = cache.runs()?;
        let first_kept = runs.len().saturating_sub(keep.runs);
        for (index, run) in runs.iter().enumerate().filter(|(_, run)| !run.is_running) {
            if run.is_pinned || index >= first_kept {
                watch.results.extend(run.results()?);
            }
            watch.settled.insert(run.results_path());
        }
        for path in leases(cache)? {
            if !is_held(&path)? {
                watch.settled.insert(path.clone());
                watch.left.push(path);
            }
        }
        watch.refresh(cache)?;
        Ok(watch)
    }

    /// Notes what living processes need by now. The caller holds the cache alone.
    pub(super) fn refresh(&mut self, cache: &Cache) -> Result<(), CacheError> {
        let runs = list(&cache.root().join("runs"))?.into_iter().map(|run| run.join(RESULTS));
        for path in runs.chain(leases(cache)?).filter(|path| !self.settled.contains(path)).collect::<Vec<_>>() {
            for fingerprint in listed(&path)? {
                self.need(cache, fingerprint)?;
            }
        }
        Ok(())
    }

    /// Notes a result and, as far as its record is known, its blobs.
    fn need(&mut self, cache: &Cache, fingerprint: Digest) -> Result<(), CacheError> {
        self.results.insert(fingerprint);
        let Some(stamp) = cache.record_stamp(&fingerprint) else { return Ok(()) };
        if self.records.get(&fingerprint) == Some(&stamp) {
            return Ok(());
        }
        if let Some(Ok(record)) = cache.peek_record(&fingerprint)? {
            self.blobs.extend(record.blobs());
        }
        self.records.insert(fingerprint, stamp);
        Ok(())
    }
}

fn leases(cache: &Cache) -> Result<Vec<PathBuf>, CacheError> {
    let folder: &Path = &cache.root().join(LEASES);
    if fs::metadata(folder).is_err() {
        return Ok(Vec::new());
    }
    list(folder)
}
