//! The history of one run: `runs/<id>/` with the pipeline's texts, the plan, the journal of events and the summary.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::{Cache, CacheError};

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

impl RunFolder {
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
}
