//! The folder in which an audit lays things out and makes results again.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use spdflow_engine::diagnostic::Diagnostic;

use crate::failure::Failure;

/// A folder that goes with its owner, unless it is kept.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    is_kept: Cell<bool>,
}

impl Scratch {
    /// Returns an empty folder in `parent`, or where temporary files belong.
    pub(super) fn new(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        // Absolute, since what is run there has another current folder.
        let parent = std::path::absolute(&parent).unwrap_or(parent);
        let failed = |path: &Path, error| {
            let diagnostic = Diagnostic::new(format!("cannot create the folder `{}`: {error}", path.display()));
            Failure::input(diagnostic.hint("name another one with `--scratch DIR`"))
        };
        fs::create_dir_all(&parent).map_err(|error| failed(&parent, error))?;
        let mut number = 0;
        loop {
            let folder = parent.join(format!("spdflow-audit-{}-{number}", std::process::id()));
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(Self { folder, is_kept: Cell::new(false) }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(failed(&folder, error)),
            }
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets the folder stay, and returns it.
    pub(super) fn keep(&self) -> &Path {
        self.is_kept.set(true);
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_kept.get() {
            // What cannot be removed lies where temporary files lie.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
