//! Garbage collection: which files of a cache nobody needs, and their removal.
//!
//! [`Cache::garbage`] looks and deletes nothing; [`Cache::collect`] deletes what was found, except for what has come
//! into use since. Needed are the results that [`Keep`] names, those of pinned runs, of the last runs and of whatever
//! process is at work, and those used not long ago. `survey.rs` looks, `watch.rs` knows who needs what while time goes
//! on, `sweep.rs` deletes. A record is deleted before its blobs, so a collection that is cut short leaves blobs without
//! a record, which the next one takes.

mod survey;
mod sweep;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::{Digest, Stamp};
use watch::Watch;

/// What has to stay beside the results of processes that are at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// These results.
    pub results: BTreeSet<Digest>,
    /// These blobs.
    pub blobs: BTreeSet<Digest>,
    /// The results of so many last runs; those of pinned runs stay anyway.
    pub runs: usize,
    /// Results that were made or used within this time, and damaged files found within it.
    pub younger_than: Duration,
    /// With a number, nothing more is deleted once the cache has no more bytes than this; the results that were used
    /// longest ago go first.
    pub size_bytes: Option<u64>,
    /// How long a file without a record may lie untouched before nobody is believed to be at work on it.
    pub grace: Duration,
}

/// A reason for which files are garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Records that nobody needs, with the blobs that only they name.
    Results,
    /// Records that cannot be trusted.
    DamagedRecords,
    /// Blobs that no record names: of runs that were killed, or of a collection that was.
    OrphanBlobs,
    /// Checkpoints of computations that are finished, or that nobody needs.
    WorkFolders,
    /// Files whose writers are gone.
    Temporaries,
    /// Damaged files that were put aside.
    Quarantine,
}

/// How much garbage there is of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GarbageClass {
    /// Why it is garbage.
    pub class: Class,
    /// How many results, blobs, folders or files.
    pub count: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

/// What nobody needs.
#[derive(Debug)]
pub struct Garbage {
    /// How much there is of each class, in the order of [`Class`]; classes without any are left out.
    pub classes: Vec<GarbageClass>,
    /// How many results stay.
    pub kept_results: u64,
    /// How many bytes the cache has without the garbage, histories of runs not counted.
    pub kept_bytes: u64,
    /// The results that go, the one used longest ago first.
    pub results: Vec<Digest>,
    records: Vec<Item>,
    blobs: Vec<Item>,
    work: Vec<WorkItem>,
    files: Vec<FileItem>,
    watch: Watch,
}

impl Garbage {
    /// Returns how many bytes there are of it.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.classes.iter().map(|class| class.size_bytes).sum()
    }
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// How much of each class.
    pub classes: Vec<GarbageClass>,
    /// How many results and files had come into use again and stay.
    pub spared: u64,
}

/// A record or blob, as it was when it was seen.
#[derive(Debug)]
struct Item {
    digest: Digest,
    stamp: Stamp,
    class: Class,
}

#[derive(Debug)]
struct WorkItem {
    path: PathBuf,
    /// None of a folder that belongs to no fingerprint.
    fingerprint: Option<Digest>,
    size_bytes: u64,
}

#[derive(Debug)]
struct FileItem {
    path: PathBuf,
    stamp: Stamp,
    class: Class,
}

/// Adds up by class.
#[derive(Debug, Default)]
struct Tally(std::collections::BTreeMap<Class, (u64, u64)>);

impl Tally {
    fn add(&mut self, class: Class, count: u64, size_bytes: u64) {
        let entry = self.0.entry(class).or_default();
        entry.0 += count;
        entry.1 += size_bytes;
    }

    fn classes(self) -> Vec<GarbageClass> {
        self.0.into_iter().map(|(class, (count, size_bytes))| GarbageClass { class, count, size_bytes }).collect()
    }
}
