//! Takes a bundle apart, and believes nothing of it.
//!
//! Nothing is written outside of the folder: an entry that is a link or a device, or whose path leads elsewhere, ends it, and
//! so does an archive that holds more than its `bundle.json` says. Every file is compared with the sums there; what does
//! not fit is a [`Problem`] with the file's name.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use spdflow_cache::empty_folder;
use tar::{Archive, Entry, EntryType};
use zstd::Decoder;

use super::BundleError;
use super::entries::{CACHE, LOCK, cache_folders, mode};
use super::manifest::{Arguments, LeftOut, MANIFEST, Manifest, path_problem};
use crate::sums::{Sums, copy_summed};

/// How large a `bundle.json` may be: some 200 000 files.
const MOST_MANIFEST_BYTES: u64 = 64 << 20;
/// How long the path of a file may be.
const MOST_PATH_BYTES: u64 = 4096;
/// What an archive may hold besides the files it names: headers, and a little that it does not name, so that that can be named.
const SLACK_BYTES: u64 = 1 << 20;
const SLACK_BYTES_PER_FILE: u64 = 8192;

/// A bundle that was taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpacked {
    /// The pipeline's name.
    pub name: String,
    /// Its text.
    pub pipeline: PathBuf,
    /// Its lock file.
    pub lock: PathBuf,
    /// The cache with its results.
    pub cache: PathBuf,
    /// How it was called.
    pub arguments: Arguments,
    /// The environment variables that it looks at, with the values they had; nothing for one that was not set.
    pub variables: BTreeMap<String, Option<String>>,
    /// The files of results that only the sums are there of.
    pub left_out: Vec<LeftOut>,
    /// What does not fit, in the order of the archive, then what is missing.
    pub problems: Vec<Problem>,
}

/// A file of a bundle that is not as its `bundle.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is not there.
    Missing {
        /// The file.
        path: String,
    },
    /// It is not named; it was not unpacked.
    Extra {
        /// The file.
        path: String,
    },
    /// It is there more than once; the first one was unpacked.
    Twice {
        /// The file.
        path: String,
    },
    /// It has another size; a larger one was not unpacked.
    Size {
        /// The file.
        path: String,
        /// The size it should have.
        expected: u64,
        /// The size it has.
        found: u64,
    },
    /// It has other bytes.
    Changed {
        /// The file.
        path: String,
        /// The sums it should have.
        expected: Sums,
        /// The sums it has.
        found: Sums,
    },
    /// Something lies behind the last file.
    Trailing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "`{path}` is missing from the bundle"),
            Self::Extra { path } => write!(f, "`{path}` is in the bundle, but not in its `{MANIFEST}`"),
            Self::Twice { path } => write!(f, "`{path}` is in the bundle more than once"),
            Self::Size { path, expected, found } => {
                write!(f, "`{path}` has {found} bytes, its `{MANIFEST}` says {expected}")
            }
            Self::Changed { path, expected, found } if expected.blake3 == found.blake3 => {
                write!(f, "`{path}` has SHA-256 {}, its `{MANIFEST}` says {}", found.sha256, expected.sha256)
            }
            Self::Changed { path, expected, found } => {
                write!(
                    f,
                    "`{path}` was changed: it has BLAKE3 {}, its `{MANIFEST}` says {}",
                    found.blake3, expected.blake3
                )
            }
            Self::Trailing => write!(f, "something lies behind the last file of the bundle"),
        }
    }
}

/// Takes the bundle `archive` apart into `folder`, which must be empty or not be there.
///
/// # Errors
/// [`BundleError`] if the archive is no bundle, is cut short, or would do harm; then the folder is empty.
pub fn unpack(archive: &Path, folder: &Path) -> Result<Unpacked, BundleError> {
    let file = File::open(archive).map_err(BundleError::io("read", archive))?;
    fs::create_dir_all(folder).map_err(BundleError::io("create", folder))?;
    if fs::read_dir(folder).map_err(BundleError::io("read", folder))?.next().is_some() {
        return Err(BundleError::NotEmpty { path: folder.to_owned() });
    }
    let meter = Meter { left: Rc::new(Cell::new(MOST_MANIFEST_BYTES + SLACK_BYTES)), is_exceeded: Rc::default() };
    let unpacking =
        Unpacking { archive, folder, meter, declared_bytes: MOST_MANIFEST_BYTES, after: "nothing".to_owned() };
    unpacking.unpack(file).inspect_err(|_| {
        // If that fails as well, the first error is the one to tell.
        let _ = empty_folder(folder);
    })
}

/// An archive on its way.
struct Unpacking<'a> {
    archive: &'a Path,
    folder: &'a Path,
    meter: Meter,
    /// How many bytes the files have by what is known.
    declared_bytes: u64,
    /// The last entry that was begun.
    after: String,
}

impl Unpacking<'_> {
    fn unpack(mut self, file: File) -> Result<Unpacked, BundleError> {
        let decoder = Decoder::new(BufReader::new(file)).map_err(|error| self.failed(&error))?;
        let mut tar = Archive::new(Metered { inner: decoder, meter: self.meter.clone() });
        let mut manifest = None;
        let (mut seen, mut problems) = (BTreeSet::new(), Vec::new());
        // Raw: of what a header says of the next one nothing is taken but a long name, and of that not more than is sane.
        let mut long_name = None;
        for entry in tar.entries().map_err(|error| self.failed(&error))?.raw(true) {
            let mut entry = entry.map_err(|error| self.failed(&error))?;
            let kind = entry.header().entry_type();
            if kind == EntryType::GNULongName && long_name.is_none() {
                long_name = Some(self.long_name(&mut entry)?);
                continue;
            }
            let bytes = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
            let name = String::from_utf8_lossy(&bytes).into_owned();
            self.after.clone_from(&name);
            let refused = |reason: &str| self.refused(&name, reason);
            if bytes.contains(&0) || std::str::from_utf8(&bytes).is_err() {
                return Err(refused("has a name that is not text"));
            }
            if let Some(reason) = kind_problem(kind) {
                return Err(refused(reason));
            }
            let path = name.strip_suffix('/').filter(|_| kind == EntryType::Directory).unwrap_or(&name);
            if let Some(problem) = path_problem(path) {
                return Err(refused(problem));
            }
            let Some(manifest) = &manifest else {
                manifest = Some(self.manifest(path, kind, &mut entry)?);
                continue;
            };
            if kind == EntryType::Directory {
                if !is_folder(manifest, path) {
                    problems.push(Problem::Extra { path: name });
                }
                continue;
            }
            let Ok(index) = manifest.files.binary_search_by(|file| (*file.path).cmp(path)) else {
                problems.push(Problem::Extra { path: name });
                continue;
            };
            if !seen.insert(index) {
                problems.push(Problem::Twice { path: name });
                continue;
            }
            problems.extend(self.file(path, &manifest.files[index].sums, &mut entry)?);
        }
        let Some(manifest) = manifest else {
            return Err(self.not_a_bundle(format!("it holds no `{MANIFEST}`")));
        };
        if !self.is_rest_empty(tar.into_inner())? {
            problems.push(Problem::Trailing);
        }
        let missing = manifest.files.iter().enumerate().filter(|(index, _)| !seen.contains(index));
        problems.extend(missing.map(|(_, file)| Problem::Missing { path: file.path.clone() }));
        self.finish(manifest, problems)
    }

    /// Reads a name that is too long for a header.
    fn long_name(&self, entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, BundleError> {
        let size = entry.header().entry_size().map_err(|error| self.failed(&error))?;
        if size > MOST_PATH_BYTES {
            return Err(self.refused(&self.after, "is followed by one whose name is too long"));
        }
        let mut name = Vec::new();
        entry.read_to_end(&mut name).map_err(|error| self.failed(&error))?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// Reads the first entry, which must be the manifest, and takes from it how much may follow.
    fn manifest(
        &mut self,
        path: &str,
        kind: EntryType,
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<Manifest, BundleError> {
        if path != MANIFEST || kind == EntryType::Directory {
            return Err(self.not_a_bundle(format!("expected `{MANIFEST}` as its first file, found `{path}`")));
        }
        let mut bytes = Vec::new();
        entry.take(MOST_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| self.failed(&error))?;
        if bytes.len() as u64 > MOST_MANIFEST_BYTES {
            return Err(self.not_a_bundle(format!("its `{MANIFEST}` has more than {MOST_MANIFEST_BYTES} bytes")));
        }
        let manifest = Manifest::parse(&bytes).map_err(|reason| self.not_a_bundle(reason))?;
        // The manifest was checked to have a sum.
        self.declared_bytes = manifest.size_bytes().unwrap_or(u64::MAX);
        let overhead = SLACK_BYTES + SLACK_BYTES_PER_FILE * manifest.files.len() as u64;
        self.meter.left.set(self.declared_bytes.saturating_add(overhead));
        let free_bytes = free_bytes(self.folder).map_err(BundleError::io("read", self.folder))?;
        if self.declared_bytes > free_bytes {
            let (path, folder) = (self.archive.to_owned(), self.folder.to_owned());
            return Err(BundleError::NoRoom { path, folder, declared_bytes: self.declared_bytes, free_bytes });
        }
        Ok(manifest)
    }

    /// Writes a file, and says how it is not as it should be.
    fn file(
        &self,
        path: &str,
        expected: &Sums,
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<Option<Problem>, BundleError> {
        let found = entry.header().entry_size().map_err(|error| self.failed(&error))?;
        let other_size = Problem::Size { path: path.to_owned(), expected: expected.size_bytes, found };
        if found > expected.size_bytes {
            return Ok(Some(other_size));
        }
        let place = self.folder.join(path);
        if let Some(above) = place.parent() {
            fs::create_dir_all(above).map_err(BundleError::io("create", above))?;
        }
        let file = File::create_new(&place).map_err(BundleError::io("write", &place))?;
        let mut noting = Noting { inner: &file, has_failed: false };
        let copied = copy_summed(entry, &mut noting);
        let found = match copied {
            Err(error) if noting.has_failed => return Err(BundleError::io("write", &place)(error)),
            copied => copied.map_err(|error| self.failed(&error))?,
        };
        file.set_permissions(Permissions::from_mode(mode(path))).map_err(BundleError::io("write", &place))?;
        Ok(if found.size_bytes != expected.size_bytes {
            Some(other_size)
        } else if found == *expected {
            None
        } else {
            Some(Problem::Changed { path: path.to_owned(), expected: expected.clone(), found })
        })
    }

    /// Returns whether nothing but zeros follows the last entry.
    fn is_rest_empty(&self, mut rest: impl Read) -> Result<bool, BundleError> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match rest.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(count) if buffer[..count].iter().any(|byte| *byte != 0) => return Ok(false),
                Ok(_) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    fn finish(&self, manifest: Manifest, problems: Vec<Problem>) -> Result<Unpacked, BundleError> {
        for folder in cache_folders().map(|folder| self.folder.join(folder)) {
            fs::create_dir_all(&folder).map_err(BundleError::io("create", &folder))?;
        }
        let Manifest { name, pipeline, arguments, variables, left_out, .. } = manifest;
        let [pipeline, lock, cache] = [&pipeline, LOCK, CACHE].map(|path| self.folder.join(path));
        Ok(Unpacked { name, pipeline, lock, cache, arguments, variables, left_out, problems })
    }

    /// Returns the error for an archive that cannot be read on.
    fn failed(&self, error: &io::Error) -> BundleError {
        let (path, after) = (self.archive.to_owned(), self.after.clone());
        if self.meter.is_exceeded.get() {
            BundleError::TooLarge { path, after, declared_bytes: self.declared_bytes }
        } else if after == "nothing" {
            self.not_a_bundle(format!("it is not a tar archive compressed with Zstandard ({error})"))
        } else {
            BundleError::Damaged { path, after, reason: error.to_string() }
        }
    }

    fn not_a_bundle(&self, reason: String) -> BundleError {
        BundleError::NotABundle { path: self.archive.to_owned(), reason }
    }

    fn refused(&self, entry: &str, reason: &str) -> BundleError {
        let reason = reason.to_owned();
        BundleError::Refused { path: self.archive.to_owned(), entry: entry.to_owned(), reason }
    }
}

/// Returns why no bundle has entries of this kind.
fn kind_problem(kind: EntryType) -> Option<&'static str> {
    match kind {
        EntryType::Regular | EntryType::Directory => None,
        EntryType::Symlink => Some("is a symbolic link"),
        EntryType::Link => Some("is a hard link"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Some("is a device"),
        _ => Some("is neither a file nor a folder"),
    }
}

/// Returns whether a bundle has this folder.
fn is_folder(manifest: &Manifest, path: &str) -> bool {
    let below = format!("{path}/");
    let first = manifest.files.partition_point(|file| *file.path < *below);
    manifest.files.get(first).is_some_and(|file| file.path.starts_with(&below))
        || cache_folders().any(|folder| folder == path)
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Counts what comes out of an archive: more than it says, and it is a trap.
#[derive(Clone)]
struct Meter {
    left: Rc<Cell<u64>>,
    is_exceeded: Rc<Cell<bool>>,
}

struct Metered<R> {
    inner: R,
    meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.meter.left.get().checked_sub(count as u64) {
            Some(left) => self.meter.left.set(left),
            None => {
                self.meter.is_exceeded.set(true);
                return Err(io::Error::other("it holds more than it says"));
            }
        }
        Ok(count)
    }
}

/// Notes that writing failed, and not the reading beside it.
struct Noting<W> {
    inner: W,
    has_failed: bool,
}

impl<W: Write> Write for Noting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes).inspect_err(|_| self.has_failed = true)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
