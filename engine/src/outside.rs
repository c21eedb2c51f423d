//! What parameters may refer to outside the pipeline: files and environment variables.
//!
//! A kind that uses them ([`crate::kind::Kind::complete`]) puts their contents into its parameters while the pipeline
//! is read, so that they are part of the fingerprint and a missing file is a mistake with its line. The bytes that
//! were hashed are kept and handed to the stage: an edit during a run cannot get between the two.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spdflow_cache::Digest;

use crate::pipeline::Source;
use crate::spec::{Files, SET_ARGUMENT};
use crate::value::{Value, origin_of};

/// A file outside the pipeline as it was when the pipeline was read.
pub struct OutsideFile {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for OutsideFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutsideFile({}, {} bytes)", self.digest.short(), self.bytes.len())
    }
}

/// Files by the path under which the parameters know them, with `/` as separator.
pub type OutsideFiles = BTreeMap<String, Arc<OutsideFile>>;

/// What the parameters of one instance may look at.
pub struct Outside<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) sources: &'a [Source],
    /// The parameters as they were written.
    pub(crate) written: &'a Value,
    /// How many artifacts each input takes at most, if the kind takes inputs of any name.
    pub(crate) inputs: &'a BTreeMap<String, usize>,
    pub(crate) seen: &'a Seen,
}

/// How many files a folder may hold: a bound against folders that contain themselves, and data taken for code.
const MAX_FILES: usize = 10_000;

/// Every look outside and what it showed: many instances use one script, and all are to see the same of it.
#[derive(Default)]
pub(crate) struct Seen {
    files: RefCell<BTreeMap<PathBuf, Arc<OutsideFile>>>,
    /// The names in folders; nothing for a file.
    folders: RefCell<BTreeMap<PathBuf, Option<Vec<String>>>>,
    /// The values of variables that are set.
    variables: RefCell<BTreeMap<String, Option<String>>>,
}

/// What was seen, to be compared with what another look shows.
#[derive(Debug, PartialEq)]
pub(crate) struct Looks {
    pub(crate) files: Vec<(PathBuf, Digest)>,
    pub(crate) folders: Vec<(PathBuf, Option<Vec<String>>)>,
    pub(crate) variables: Vec<(String, Option<String>)>,
}

/// What the parameters of a pipeline refer to outside of it.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, by the paths at which they were read.
    pub files: BTreeMap<PathBuf, Arc<OutsideFile>>,
    /// The environment variables, with their values; nothing for one that is not set.
    pub variables: BTreeMap<String, Option<String>>,
}

impl Outside<'_> {
    /// Returns how many artifacts the input `name` takes at most, or nothing if the stage has no such input.
    #[must_use]
    pub fn artifacts(&self, name: &str) -> Option<usize> {
        self.inputs.get(name).copied()
    }

    /// Returns the names of the stage's inputs.
    pub fn inputs(&self) -> impl Iterator<Item = &str> + Clone {
        self.inputs.keys().map(String::as_str)
    }

    /// Returns the file `path`, or all files of the folder `path`, which is relative to the folder of the pipeline file
    /// in which the parameter `place` (`code[0]`) was written.
    ///
    /// # Errors
    /// What is wrong with the file, for a message that names it.
    pub fn read(&self, place: &str, path: &str) -> Result<OutsideFiles, String> {
        let folder = self.folder_of(place);
        let mut found = BTreeMap::new();
        let mut open = vec![path.trim_end_matches('/').to_owned()];
        while let Some(path) = open.pop() {
            if found.len() + open.len() > MAX_FILES {
                return Err(format!("the folder holds more than {MAX_FILES} files"));
            }
            let full = folder.join(&path);
            match self.seen.folder(self.files, &full) {
                Ok(Some(names)) => open.extend(names.into_iter().map(|name| format!("{path}/{name}"))),
                Ok(None) => {
                    let file = self.seen.file(self.files, &full).map_err(|error| reason(&path, &full, &error))?;
                    found.insert(path, file);
                }
                Err(error) => return Err(reason(&path, &full, &error)),
            }
        }
        Ok(found)
    }

    /// Returns the value of an environment variable, nothing if it is not set.
    ///
    /// # Errors
    /// That its value is not UTF-8, for a message that names it.
    pub fn variable(&self, name: &str) -> Result<Option<String>, String> {
        self.seen.variable(self.files, name).ok_or_else(|| format!("the value of variable `{name}` is not UTF-8 text"))
    }

    /// Returns the folder of the file in which a parameter was written; for `--set`, that of the pipeline's own file.
    fn folder_of(&self, place: &str) -> PathBuf {
        let source = origin_of(self.written, place).and_then(|origin| self.sources.get(origin.source));
        let file = source.filter(|source| source.name != SET_ARGUMENT).or(self.sources.first());
        file.and_then(|file| Path::new(&file.name).parent()).unwrap_or(Path::new("")).to_owned()
    }
}

impl Seen {
    /// Returns all that was seen.
    pub(crate) fn found(&self) -> Found {
        Found { files: self.files.borrow().clone(), variables: self.variables.borrow().clone() }
    }

    /// Looks again at all that `looks` holds; `None` if anything is not as it was.
    pub(crate) fn again(files: &dyn Files, looks: &Looks) -> Option<Self> {
        let seen = Self::default();
        let is_same = looks.folders.iter().all(|(path, names)| seen.folder(files, path).is_ok_and(|now| now == *names))
            && looks.files.iter().all(|(path, digest)| seen.file(files, path).is_ok_and(|now| now.digest == *digest))
            && looks.variables.iter().all(|(name, value)| seen.variable(files, name).is_some_and(|now| now == *value));
        is_same.then_some(seen)
    }

    /// Returns what was seen.
    pub(crate) fn looks(&self) -> Looks {
        let entry = |(path, file): (&PathBuf, &Arc<OutsideFile>)| (path.clone(), file.digest);
        Looks {
            files: self.files.borrow().iter().map(entry).collect(),
            folders: self.folders.borrow().clone().into_iter().collect(),
            variables: self.variables.borrow().clone().into_iter().collect(),
        }
    }

    /// Returns the file at `path`.
    pub(crate) fn file(&self, files: &dyn Files, path: &Path) -> io::Result<Arc<OutsideFile>> {
        if let Some(file) = self.files.borrow().get(path) {
            return Ok(file.clone());
        }
        let bytes = files.read_bytes(path)?;
        let file = Arc::new(OutsideFile { digest: Digest::of(&bytes), bytes });
        self.files.borrow_mut().insert(path.to_owned(), file.clone());
        Ok(file)
    }

    /// Returns the names in the folder at `path`, or nothing if that is a file.
    fn folder(&self, files: &dyn Files, path: &Path) -> io::Result<Option<Vec<String>>> {
        if let Some(names) = self.folders.borrow().get(path) {
            return Ok(names.clone());
        }
        let names = match files.list(path) {
            Ok(names) => Some(names),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
            Err(error) => return Err(error),
        };
        self.folders.borrow_mut().insert(path.to_owned(), names.clone());
        Ok(names)
    }

    /// Returns the value of a variable, if it is set; nothing if that is not UTF-8.
    fn variable(&self, files: &dyn Files, name: &str) -> Option<Option<String>> {
        if let Some(value) = self.variables.borrow().get(name) {
            return Some(value.clone());
        }
        let value = match files.variable(name) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => return None,
        };
        self.variables.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    }
}

fn reason(path: &str, full: &Path, error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "there is no file".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission to read".to_owned(),
        _ => format!("cannot read ({error})"),
    };
    let place = full.display().to_string();
    if place == path { format!("{what} `{path}`") } else { format!("{what} `{path}` (looked for as `{place}`)") }
}
