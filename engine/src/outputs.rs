//! The folder where results appear: `out/<pipeline>/<stage>/<axis=value>/…`.
//!
//! A result's folder is filled beside its place and renamed, so that whoever sees it sees all of it. Files are copies
//! of blobs, checked on the way; what lies in the cache cannot be harmed by editing a result.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use spdflow_cache::{BlobState, Cache, CacheError, Output};

use crate::artifact::MANIFEST;
use crate::error::RunError;
use crate::machine::host;

/// The results of one pipeline.
#[derive(Debug)]
pub(crate) struct OutputRoot {
    path: PathBuf,
    prefix: String,
}

/// What became of putting a result in place.
#[derive(Debug)]
pub(crate) enum Placed {
    /// It is there.
    Whole,
    /// The cache could not give this file back.
    Lost {
        /// The file.
        output: String,
        /// Missing or damaged.
        state: BlobState,
    },
}

const PARTIAL: &str = ".partial-";

// Of the process and not of a root: several roots of one process may lie in the same folder.
static NAMES_GIVEN: AtomicU64 = AtomicU64::new(0);

impl OutputRoot {
    /// Returns the output folder `path`, which need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        let prefix = format!("{PARTIAL}{}-{}", host(), std::process::id());
        Self { path, prefix }
    }

    /// Returns the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what processes of this machine that were killed left half done.
    pub(crate) fn remove_leftovers(&self) {
        let ours = format!("{PARTIAL}{}-", host());
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let process = name.to_str().and_then(|name| name.strip_prefix(&ours)?.split('-').next()?.parse().ok());
            // Without /proc nothing is known of other processes, and nothing is removed.
            let is_gone =
                |process: u32| Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{process}")).exists();
            if process.is_some_and(is_gone) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Puts a result in place, replacing what an earlier run put there.
    pub(crate) fn place(
        &self,
        cache: &Cache,
        instance: &str,
        below: &Path,
        outputs: &[Output],
    ) -> Result<Placed, RunError> {
        let target = self.path.join(below);
        if !may_replace(&target) {
            return Err(RunError::OutputTaken { instance: instance.to_owned(), path: target });
        }
        let partial = self.fresh_name();
        create(&partial)?;
        let filled = fill(cache, &partial, outputs);
        if !matches!(filled, Ok(Placed::Whole)) {
            let _ = fs::remove_dir_all(&partial);
            return Ok(filled?);
        }
        self.remove_results_above(below)?;
        self.swap(&partial, &target)?;
        Ok(Placed::Whole)
    }

    fn fresh_name(&self) -> PathBuf {
        self.path.join(format!("{}-{}", self.prefix, NAMES_GIVEN.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes `partial` the folder `target`. A folder cannot be renamed over one that is not empty, so an old one steps
    /// aside. Another process may put the same result there in between; then there is simply a newer old one.
    fn swap(&self, partial: &Path, target: &Path) -> Result<(), CacheError> {
        for _ in 0..100 {
            if move_to_free_place(partial, target)? {
                return Ok(());
            }
            let aside = self.fresh_name();
            match fs::rename(target, &aside) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CacheError::io("replace", target)(error)),
            }
            let has_moved = move_to_free_place(partial, target);
            let _ = fs::remove_dir_all(&aside);
            if has_moved? {
                return Ok(());
            }
        }
        Err(CacheError::io("replace", target)(io::Error::other("other processes keep writing it")))
    }

    /// A stage that had no matrix before has its old result where the folders of its instances belong.
    fn remove_results_above(&self, below: &Path) -> Result<(), CacheError> {
        let parents = below.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        for parent in parents.map(|parent| self.path.join(parent)) {
            if parent.join(MANIFEST).is_file() {
                let aside = self.fresh_name();
                fs::rename(&parent, &aside).map_err(CacheError::io("replace", &parent))?;
                let _ = fs::remove_dir_all(&aside);
            }
        }
        Ok(())
    }
}

/// Makes `partial` the folder `target` unless something is there, and says whether it did.
fn move_to_free_place(partial: &Path, target: &Path) -> Result<bool, CacheError> {
    let mut moved = fs::rename(partial, target);
    if let (Err(error), Some(parent)) = (&moved, target.parent())
        && error.kind() == io::ErrorKind::NotFound
    {
        create(parent)?;
        moved = fs::rename(partial, target);
    }
    match moved {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
            Ok(false)
        }
        Err(error) => Err(CacheError::io("create", target)(error)),
    }
}

fn create(folder: &Path) -> Result<(), CacheError> {
    fs::create_dir_all(folder).map_err(CacheError::io("create", folder))
}

/// Whether nothing is there, or only what we made: a result, or folders that hold nothing but results.
fn may_replace(target: &Path) -> bool {
    match fs::symlink_metadata(target) {
        Err(error) => error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory,
        Ok(metadata) if !metadata.is_dir() => false,
        Ok(_) if target.join(MANIFEST).is_file() => true,
        Ok(_) => fs::read_dir(target)
            .is_ok_and(|entries| entries.flatten().all(|entry| entry.path().is_dir() && may_replace(&entry.path()))),
    }
}

fn fill(cache: &Cache, folder: &Path, outputs: &[Output]) -> Result<Placed, CacheError> {
    for output in outputs {
        let path = folder.join(&output.path);
        if let Some(parent) = path.parent().filter(|_| output.path.contains('/')) {
            create(parent)?;
        }
        let state = cache.restore(&output.digest, &path)?;
        if state != BlobState::Intact {
            return Ok(Placed::Lost { output: output.path.clone(), state });
        }
    }
    Ok(Placed::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
        cache: Cache,
        root: OutputRoot,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let root = OutputRoot::new(dir.path().join("out"));
        Fixture { dir, cache, root }
    }

    fn outputs(cache: &Cache, files: &[(&str, &str)]) -> Vec<Output> {
        let output = |(path, text): &(&str, &str)| Output {
            path: (*path).to_owned(),
            size_bytes: text.len() as u64,
            digest: cache.store_bytes(text.as_bytes()).unwrap(),
            format: "json".to_owned(),
            summary: String::new(),
        };
        files.iter().map(output).collect()
    }

    #[test]
    fn a_new_result_replaces_an_old_one_whole_and_leaves_nothing_beside_it() {
        let Fixture { dir, cache, root } = fixture();
        let below = Path::new("stage/seed=0");
        let old = outputs(&cache, &[(MANIFEST, "{}"), ("old/file", "1")]);
        let new = outputs(&cache, &[(MANIFEST, "{}"), ("new", "2")]);
        assert!(matches!(root.place(&cache, "stage", below, &old).unwrap(), Placed::Whole));
        assert!(matches!(root.place(&cache, "stage", below, &new).unwrap(), Placed::Whole));
        let place = dir.path().join("out/stage/seed=0");
        assert!(!place.join("old").exists());
        assert_eq!(fs::read_to_string(place.join("new")).unwrap(), "2");
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_of_the_users_is_never_replaced() {
        let Fixture { dir, cache, root } = fixture();
        fs::create_dir_all(dir.path().join("out/stage/notes")).unwrap();
        fs::write(dir.path().join("out/stage/notes/thesis.tex"), "x").unwrap();
        let files = outputs(&cache, &[(MANIFEST, "{}")]);
        let error = root.place(&cache, "stage", Path::new("stage"), &files).unwrap_err();
        assert!(matches!(error, RunError::OutputTaken { .. }), "{error}");
        assert!(dir.path().join("out/stage/notes/thesis.tex").is_file());
    }

    #[test]
    fn a_lost_blob_leaves_the_old_result_in_place() {
        let Fixture { dir, cache, root } = fixture();
        let old = outputs(&cache, &[(MANIFEST, "{}"), ("file", "1")]);
        root.place(&cache, "stage", Path::new("stage"), &old).unwrap();
        let new = outputs(&cache, &[(MANIFEST, "{}"), ("file", "2")]);
        fs::remove_file(cache.blob_path(&new[1].digest)).unwrap();
        let placed = root.place(&cache, "stage", Path::new("stage"), &new).unwrap();
        assert!(matches!(placed, Placed::Lost { ref output, .. } if output == "file"), "{placed:?}");
        assert_eq!(fs::read_to_string(dir.path().join("out/stage/file")).unwrap(), "1");
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
    }

    #[test]
    fn a_stage_may_gain_and_lose_a_matrix() {
        let Fixture { dir, cache, root } = fixture();
        let files = outputs(&cache, &[(MANIFEST, "{}"), ("file", "1")]);
        for below in ["stage", "stage/seed=0", "stage"] {
            root.place(&cache, "stage", Path::new(below), &files).unwrap();
            assert!(dir.path().join("out").join(below).join("file").is_file());
        }
        assert!(!dir.path().join("out/stage/seed=0").exists());
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not() {
        let Fixture { dir, root, .. } = fixture();
        // Process ids end below 2^22.
        let dead = dir.path().join("out").join(format!("{PARTIAL}{}-4999999-0", host()));
        let alive = dir.path().join("out").join(format!("{PARTIAL}{}-{}-0", host(), std::process::id()));
        fs::create_dir_all(&dead).unwrap();
        fs::create_dir_all(&alive).unwrap();
        root.remove_leftovers();
        assert!(!dead.exists());
        assert!(alive.exists());
    }
}
