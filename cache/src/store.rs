//! The cache folder: opening it, naming what lies in it, writing files so that they appear whole.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::run_log::FOLDER as LOG_FOLDER;
use crate::{CacheError, Digest, Work};

/// The layout this code reads and writes; goes up when an older spdflow could misread a newer folder.
pub const CACHE_FORMAT: u32 = 1;

const VERSION_WORD: &str = "spdflow-cache";

/// What `VERSION` holds.
pub(crate) const VERSION_TEXT: &str = "spdflow-cache 1\n";
/// The folders that every cache has.
pub const FOLDERS: [&str; 7] = ["blobs", "records", "runs", "work", "quarantine", "index", "tmp"];

/// One cache folder, shared by any number of threads and processes.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    folder: File,
    unflushed: AtomicBool,
    /// Work folders for the next computations of this process.
    spares: Mutex<Vec<Work>>,
}

impl Drop for Cache {
    fn drop(&mut self) {
        if !self.spares.get_mut().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.remove_spares();
        }
    }
}

// Of the process: it may open one folder several times.
static NAMES_GIVEN: AtomicU64 = AtomicU64::new(0);

impl Cache {
    /// Opens the cache in `root`, creating it if nothing or an empty folder is there.
    ///
    /// # Errors
    /// [`CacheError`] if the folder is somebody else's, of a newer format, or cannot be used.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        match fs::metadata(root) {
            Ok(metadata) if !metadata.is_dir() => return Err(CacheError::NotAFolder { path: root.to_owned() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(root).map_err(CacheError::io("create", root))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(CacheError::NotAFolder { path: root.to_owned() });
            }
            Err(error) => return Err(CacheError::io("read", root)(error)),
        }
        // Absolute, so that the cache stays where it is if the program changes its folder.
        let root = root.canonicalize().map_err(CacheError::io("read", root))?;
        let folder = File::open(&root).map_err(CacheError::io("read", &root))?;
        let cache = Self { root, folder, unflushed: AtomicBool::new(false), spares: Mutex::default() };
        let version = cache.root.join("VERSION");
        if !cache.check_version(&version)? {
            cache.create(&version)?;
        }
        Ok(cache)
    }

    /// Returns whether there is a version at all.
    fn check_version(&self, file: &Path) -> Result<bool, CacheError> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(CacheError::io("read", file)(error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        let found = text.lines().next().unwrap_or_default().trim();
        match version_number(&text) {
            Some(CACHE_FORMAT) => Ok(true),
            Some(newer) if newer > CACHE_FORMAT => Err(CacheError::Newer { path: self.root.clone(), found: newer }),
            _ => Err(CacheError::BadVersion { path: file.to_owned(), found: found.chars().take(60).collect() }),
        }
    }

    // VERSION comes last: a folder without it that holds only our own names is a creation that was cut short.
    fn create(&self, version: &Path) -> Result<(), CacheError> {
        for entry in fs::read_dir(&self.root).map_err(CacheError::io("read", &self.root))? {
            let name = entry.map_err(CacheError::io("read", &self.root))?.file_name();
            let is_ours =
                FOLDERS.iter().any(|known| OsStr::new(known) == name) || name == ".gitignore" || name == LOG_FOLDER;
            if !is_ours {
                // Another process may have finished the creation in between, and filled the cache.
                if self.check_version(version)? {
                    return Ok(());
                }
                let found = name.to_string_lossy().into_owned();
                return Err(CacheError::Foreign { path: self.root.clone(), found });
            }
        }
        for folder in FOLDERS {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).map_err(CacheError::io("create", &path))?;
        }
        // A cache below a project must never be committed with it.
        let ignore = self.root.join(".gitignore");
        fs::write(&ignore, "*\n").map_err(CacheError::io("write", &ignore))?;
        self.write_whole(version, VERSION_TEXT.as_bytes(), 0o644)
    }

    /// Returns the folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes everything stored so far survive a power failure. Costs nothing when nothing was stored.
    ///
    /// One `syncfs` for many files: a thousand small stages would otherwise wait for thousands of `fsync`s.
    ///
    /// # Errors
    /// [`CacheError`] if the system could not write.
    pub fn flush(&self) -> Result<(), CacheError> {
        if !self.unflushed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let synced = sync_file_system(&self.folder);
        if synced.is_err() {
            self.unflushed.store(true, Ordering::Release);
        }
        synced.map_err(CacheError::io("write", &self.root))
    }

    /// Returns the folder, open.
    pub(crate) fn folder(&self) -> &File {
        &self.folder
    }

    /// Returns `<root>/<folder>/ab/cdef…`, the place of `digest`.
    pub(crate) fn place(&self, folder: &str, digest: &Digest, suffix: &str) -> PathBuf {
        let text = digest.to_string();
        let (head, tail) = text.split_at(2);
        // One allocation: a look at a thousand stages asks for some ten thousand places.
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + folder.len() + suffix.len() + 70);
        path.push(&self.root);
        path.push(folder);
        path.push(head);
        path.push(tail);
        path.as_mut_os_string().push(suffix);
        path
    }

    /// Returns a path in `tmp/` that nobody else uses.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp").join(self.unique_name(""))
    }

    /// Returns a name that nobody else uses.
    pub(crate) fn unique_name(&self, prefix: &str) -> String {
        let number = NAMES_GIVEN.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}{}-{:x}-{number}", std::process::id(), crate::Stamp::now())
    }

    pub(crate) fn spares(&self) -> &Mutex<Vec<Work>> {
        &self.spares
    }

    /// Removes temporary files that were left by processes killed more than a day ago, and spare work folders of
    /// processes that are gone.
    pub fn remove_old_temporaries(&self) {
        self.remove_spares();
        const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
        for entry in fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > DAY)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Writes `bytes` to `path` so that the file is there whole or not at all.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), CacheError> {
        let temporary = self.temporary();
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            sync_early(&file)
        });
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(CacheError::io("write", path)(error));
        }
        self.publish(&temporary, path)
    }

    /// Renames a finished temporary file to its place, creating the folder above it when needed.
    pub(crate) fn publish(&self, temporary: &Path, path: &Path) -> Result<(), CacheError> {
        self.unflushed.store(true, Ordering::Release);
        self.publish_unsynced(temporary, path)
    }

    /// As [`Cache::publish`], for a file that need not survive a power failure.
    pub(crate) fn publish_unsynced(&self, temporary: &Path, path: &Path) -> Result<(), CacheError> {
        let renamed = fs::rename(temporary, path).or_else(|error| match path.parent() {
            Some(parent) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(parent)?;
                fs::rename(temporary, path)
            }
            _ => Err(error),
        });
        renamed.map_err(|error| {
            let _ = fs::remove_file(temporary);
            CacheError::io("write", path)(error)
        })
    }

    /// Moves a file that cannot be trusted out of the way and returns where it lies now.
    pub(crate) fn quarantine(&self, path: &Path) -> Result<PathBuf, CacheError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let number = NAMES_GIVEN.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{parent}{name}.{}-{:x}-{number}", std::process::id(), crate::Stamp::now());
        let target = self.root.join("quarantine").join(unique);
        match fs::rename(path, &target) {
            // Another process was faster: the file is out of the way all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target),
            other => other.map(|()| target).map_err(CacheError::io("write", path)),
        }
    }
}

/// Returns the format that the text of a `VERSION` names, if it is one of ours.
pub(crate) fn version_number(text: &str) -> Option<u32> {
    text.lines().next()?.trim().strip_prefix(VERSION_WORD)?.trim().parse().ok()
}

#[cfg(target_os = "linux")]
fn sync_file_system(folder: &File) -> io::Result<()> {
    rustix::fs::syncfs(folder).map_err(io::Error::from)
}

#[cfg(target_os = "linux")]
pub(crate) fn sync_early(_file: &File) -> io::Result<()> {
    Ok(())
}

// Elsewhere there is no syncfs, so each file is synced as it is written.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(folder: &File) -> io::Result<()> {
    folder.sync_all()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_early(file: &File) -> io::Result<()> {
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_becomes_a_cache_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/cache");
        Cache::open(&root).unwrap();
        assert_eq!(fs::read_to_string(root.join("VERSION")).unwrap(), "spdflow-cache 1\n");
        Cache::open(&root).unwrap();
    }

    #[test]
    fn a_creation_cut_short_is_finished_by_the_next_open() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("blobs")).unwrap();
        Cache::open(dir.path()).unwrap();
        assert!(dir.path().join("VERSION").is_file());
    }

    #[test]
    fn many_may_create_the_cache_at_once() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("cache");
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| Cache::open(&root).unwrap());
                }
            });
        }
    }

    #[test]
    fn a_folder_with_other_things_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = Cache::open(dir.path()).unwrap_err();
        let expected = format!(
            "the folder `{}` is not a spdflow cache: it holds `thesis.tex` but no `VERSION`",
            dir.path().canonicalize().unwrap().display()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("VERSION"), "spdflow-cache 7\n").unwrap();
        let error = Cache::open(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("has format 7, but this spdflow reads format 1"), "{error}");
    }

    #[test]
    fn a_version_file_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("VERSION"), "3.11\n").unwrap();
        let error = Cache::open(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("expected `spdflow-cache 1`, found `3.11`"), "{error}");
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        assert!(matches!(Cache::open(&path), Err(CacheError::NotAFolder { .. })));
        assert!(matches!(Cache::open(&path.join("below")), Err(CacheError::NotAFolder { .. })));
    }
}
