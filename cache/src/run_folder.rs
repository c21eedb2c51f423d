//! The history of one run: `runs/<id>/` with the pipeline's texts, the plan, the journal of events and the summary.
//!
//! `results` lists the fingerprints that the run made or relied on. While the run lives it is its lease (`lease.rs`);
//! afterwards it says what garbage collection keeps for the last runs and for those that are pinned.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::lease::{is_held, listed};
use crate::{Cache, CacheError, Digest, Lease, Stamp};

/// The folder of one run, open for writing.
#[derive(Debug)]
pub struct RunFolder {
    id: String,
    path: PathBuf,
    journal: BufWriter<File>,
}

impl Cache {
    /// Creates the folder of a new run. `stamp` is the run's start as `20261121T225553Z`; runs that start in the same
    /// second get different ids.
    ///
    /// # Errors
    /// [`CacheError`] if the folder cannot be created.
    pub fn create_run(&self, stamp: &str) -> Result<RunFolder, CacheError> {
        let runs = self.root().join("runs");
        let mut number = 0;
        let (id, path) = loop {
            let id = if number == 0 { stamp.to_owned() } else { format!("{stamp}-{number}") };
            let path = runs.join(&id);
            match fs::create_dir(&path) {
                Ok(()) => break (id, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(CacheError::io("create", &path)(error)),
            }
        };
        let journal = path.join("journal.jsonl");
        let file = File::create(&journal).map_err(CacheError::io("create", &journal))?;
        Ok(RunFolder { id, path, journal: BufWriter::new(file) })
    }
}

/// What is known of a run from its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// Its id.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// Whether garbage collection keeps its results.
    pub is_pinned: bool,
    /// Whether it is under way.
    pub is_running: bool,
}

/// The file in a run's folder that lists its results.
pub(crate) const RESULTS: &str = "results";
/// The mark of a run whose results stay.
pub(crate) const PINNED: &str = "pinned";

impl Cache {
    /// Returns every run, the oldest first.
    ///
    /// # Errors
    /// [`CacheError`] if the folder cannot be read.
    pub fn runs(&self) -> Result<Vec<RunInfo>, CacheError> {
        let folder = self.root().join("runs");
        let mut runs = Vec::new();
        for entry in fs::read_dir(&folder).map_err(CacheError::io("read", &folder))? {
            let path = entry.map_err(CacheError::io("read", &folder))?.path();
            if !path.is_dir() {
                continue;
            }
            let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (is_pinned, is_running) = (path.join(PINNED).exists(), is_held(&path.join(RESULTS))?);
            runs.push(RunInfo { id, path, is_pinned, is_running });
        }
        runs.sort_by_cached_key(|run| order(&run.id));
        Ok(runs)
    }

    /// Makes garbage collection keep the results of a run, or no longer; says whether there is such a run.
    ///
    /// # Errors
    /// [`CacheError`] if the mark cannot be written.
    pub fn pin_run(&self, id: &str, is_pinned: bool) -> Result<bool, CacheError> {
        let Some(run) = self.runs()?.into_iter().find(|run| run.id == id) else { return Ok(false) };
        let mark = run.path.join(PINNED);
        let marked = if is_pinned {
            fs::write(&mark, "")
        } else {
            match fs::remove_file(&mark) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        };
        marked.map_err(CacheError::io("write", &mark))?;
        Ok(true)
    }
}

impl RunInfo {
    /// Returns the fingerprints that the run made or relied on, in the order in which it needed them.
    ///
    /// # Errors
    /// [`CacheError`] if the list cannot be read.
    pub fn results(&self) -> Result<Vec<Digest>, CacheError> {
        listed(&self.results_path())
    }

    /// Returns whether the run is under way now, which it may have been when it was listed.
    ///
    /// # Errors
    /// [`CacheError`] if that cannot be found out.
    pub fn is_under_way(&self) -> Result<bool, CacheError> {
        is_held(&self.results_path())
    }

    /// Returns when the run last noted a result, in nanoseconds since 1970; 0 if it never did.
    pub(crate) fn last_use(&self) -> i64 {
        fs::metadata(self.results_path()).map_or(0, |metadata| Stamp::of(&metadata).modified)
    }

    pub(crate) fn results_path(&self) -> PathBuf {
        self.path.join(RESULTS)
    }
}

/// Orders ids by start, and runs that began in the same second by their number.
fn order(id: &str) -> (String, u64) {
    let (stamp, number) = id.split_once('-').unwrap_or((id, "0"));
    (stamp.to_owned(), number.parse().unwrap_or(u64::MAX))
}

impl RunFolder {
    /// Returns the list of results that the run needs, empty as yet.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be written.
    pub fn lease(&self, cache: &Cache) -> Result<Lease, CacheError> {
        cache.lease_at(&self.path.join(RESULTS))
    }

    /// Returns the run's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file beside the journal.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(CacheError::io("write", &path))
    }

    /// Writes a file that can be executed beside the journal.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be written.
    pub fn write_program(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        self.write(name, bytes)?;
        let path = self.path.join(name);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(CacheError::io("write", &path))
    }

    /// Appends one line to the journal; it reaches the file with the next [`RunFolder::flush`], or earlier.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be written.
    pub fn append(&mut self, line: &str) -> Result<(), CacheError> {
        let written = self.journal.write_all(line.as_bytes()).and_then(|()| self.journal.write_all(b"\n"));
        written.map_err(CacheError::io("write", &self.path))
    }

    /// Hands the journal's lines to the system.
    ///
    /// # Errors
    /// [`CacheError`] if they cannot be written.
    pub fn flush(&mut self) -> Result<(), CacheError> {
        self.journal.flush().map_err(CacheError::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_of_one_second_have_two_folders() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut first = cache.create_run("20261121T225553Z").unwrap();
        let second = cache.create_run("20261121T225553Z").unwrap();
        assert_eq!((first.id(), second.id()), ("20261121T225553Z", "20261121T225553Z-1"));
        first.append("{}").unwrap();
        first.flush().unwrap();
        assert_eq!(fs::read_to_string(first.path().join("journal.jsonl")).unwrap(), "{}\n");
    }

    #[test]
    fn runs_are_listed_in_the_order_of_their_starts_with_what_they_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let folders: Vec<_> = (0..12).map(|_| cache.create_run("20261121T225553Z").unwrap()).collect();
        let lease = folders[3].lease(&cache).unwrap();
        lease.add(&cache, &[Digest::of(b"a")]).unwrap();
        let runs = cache.runs().unwrap();
        assert_eq!(
            runs.iter().map(|run| &run.id).collect::<Vec<_>>(),
            folders.iter().map(RunFolder::id).collect::<Vec<_>>()
        );
        assert_eq!(runs.iter().position(|run| run.is_running), Some(3));
        assert!(runs[3].is_under_way().unwrap() && !runs[4].is_under_way().unwrap());
        assert_eq!(runs[3].results().unwrap(), [Digest::of(b"a")]);
        assert_eq!(runs[4].results().unwrap(), []);
    }

    #[test]
    fn a_run_is_pinned_until_it_is_unpinned() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let id = cache.create_run("20261121T225553Z").unwrap().id().to_owned();
        let pinned = || cache.runs().unwrap()[0].is_pinned;
        assert!(cache.pin_run(&id, true).unwrap() && pinned());
        assert!(cache.pin_run(&id, false).unwrap() && !pinned());
        assert!(cache.pin_run(&id, false).unwrap());
        assert!(!cache.pin_run("../runs", true).unwrap());
    }
}
