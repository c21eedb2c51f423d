//! The folder of a running computation, `work/<fingerprint>/`, and the lock that makes it run once.
//!
//! The lock is `flock` on the file `lock`: the kernel releases it when the process ends, however it ends, so there is
//! nothing to unlock by hand and nothing stale. `scratch/` (checkpoints) and `log` outlive a killed process;
//! `out/` is emptied before every attempt. The folder goes away when the result is recorded: it is emptied, renamed to
//! `work/spare-…`, still locked, and becomes the folder of the process's next computation by another rename. Making
//! and removing five files and folders for each would cost a small stage more than its work.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use crate::{Cache, CacheError, Digest, Stamp};

/// Who holds a lock, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id on its machine.
    pub process: Option<u32>,
}

/// The exclusive right to compute one fingerprint. Dropping it gives the right back and keeps the folder.
#[derive(Debug)]
pub struct Work {
    folder: PathBuf,
    lock: File,
    /// How many attempts were begun.
    attempts: u32,
    /// Whether `out/` and `scratch/` are there and empty.
    is_ready: bool,
}

/// What is remembered about attempts at a computation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempt {
    /// How many earlier attempts did not finish.
    pub earlier: u32,
}

/// How many spare folders a process keeps: as many as it is likely to compute at once.
const MAX_SPARES: usize = 64;

const SPARE: &str = "spare-";
const REPRO: &str = "repro.sh";

impl Cache {
    /// Returns the folder of a running computation, whether or not it exists.
    #[must_use]
    pub fn work_folder(&self, fingerprint: &Digest) -> PathBuf {
        self.root().join("work").join(fingerprint.to_string())
    }

    /// Returns who computes `fingerprint` at this moment, or `None` if nobody does.
    ///
    /// # Errors
    /// [`CacheError`] if the lock exists but cannot be tried.
    pub fn running(&self, fingerprint: &Digest) -> Result<Option<Holder>, CacheError> {
        let path = self.work_folder(fingerprint).join("lock");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::io("read", &path)(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(fs::TryLockError::WouldBlock) => Ok(Some(holder(&mut file))),
            Err(fs::TryLockError::Error(error)) => Err(CacheError::io("lock", &path)(error)),
        }
    }

    /// Waits until nobody else computes `fingerprint` and takes the right to do so. While it waits it calls `waiting`
    /// several times a second with the present holder; `None` is returned when that answers `Break`.
    ///
    /// The caller looks the fingerprint up again afterwards: whoever held the lock has probably recorded a result.
    ///
    /// # Errors
    /// [`CacheError`] if the work folder cannot be created or locked.
    pub fn lock(
        &self,
        fingerprint: &Digest,
        waiting: &mut dyn FnMut(&Holder) -> ControlFlow<()>,
    ) -> Result<Option<Work>, CacheError> {
        let folder = self.work_folder(fingerprint);
        if let Some(work) = self.take_spare(&folder) {
            return Ok(Some(work));
        }
        let path = folder.join("lock");
        let mut pause = Duration::from_millis(2);
        loop {
            match fs::create_dir_all(&folder) {
                // Its last holder removed it while we looked whether it is a folder.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !folder.is_file() => continue,
                created => created.map_err(CacheError::io("create", &folder))?,
            }
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = match opened {
                Ok(file) => file,
                // Its last holder removed the folder between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(CacheError::io("lock", &path)(error)),
            };
            match file.try_lock() {
                Ok(()) if is_still_at(&file, &path) => {
                    let attempts = words(&mut file).get(1).copied().unwrap_or(0);
                    let work = Work { folder, lock: file, attempts, is_ready: false };
                    work.sign()?;
                    return Ok(Some(work));
                }
                // We locked a file that its last holder had removed: there may be a new one already.
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    if waiting(&holder(&mut file)).is_break() {
                        return Ok(None);
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
                Err(fs::TryLockError::Error(error)) => return Err(CacheError::io("lock", &path)(error)),
            }
        }
    }

    /// Gives the right back: the result is recorded and nothing in the folder is needed any more.
    ///
    /// # Errors
    /// [`CacheError`] if the folder cannot be emptied.
    pub fn finish(&self, mut work: Work) -> Result<(), CacheError> {
        let count = self.spares().lock().unwrap_or_else(PoisonError::into_inner).len();
        if count >= MAX_SPARES {
            return work.remove();
        }
        for folder in [work.out_dir(), work.scratch_dir()] {
            empty_folder(&folder)?;
        }
        remove_file(&work.repro_path())?;
        let log = work.log_path();
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0) {
            File::options().write(true).truncate(true).open(&log).map_err(CacheError::io("write", &log))?;
        }
        let place = self.root().join("work").join(self.unique_name(SPARE));
        fs::rename(&work.folder, &place).map_err(CacheError::io("write", &work.folder))?;
        work.folder = place;
        // A holder that found the result of somebody else never began, so these folders are not there.
        work.is_ready |= work.attempts > 0;
        work.attempts = 0;
        work.sign()?;
        self.spares().lock().unwrap_or_else(PoisonError::into_inner).push(work);
        Ok(())
    }

    /// Makes a spare folder that of a computation, if there is one and nobody has begun it.
    fn take_spare(&self, folder: &Path) -> Option<Work> {
        let mut spares = self.spares().lock().unwrap_or_else(PoisonError::into_inner);
        let mut work = spares.pop()?;
        // A folder cannot be renamed over one that holds anything, such as the lock of somebody else.
        if fs::rename(&work.folder, folder).is_err() {
            spares.push(work);
            return None;
        }
        work.folder = folder.to_owned();
        Some(work)
    }

    /// Removes the spare folders of this process, and of processes that were killed.
    pub(crate) fn remove_spares(&self) {
        let mut spares = self.spares().lock().unwrap_or_else(PoisonError::into_inner);
        for work in spares.drain(..) {
            let _ = work.remove();
        }
        for entry in fs::read_dir(self.root().join("work")).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().starts_with(SPARE) {
                continue;
            }
            let lock = File::open(entry.path().join("lock"));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

pub(crate) fn is_still_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    let (held, named) = (Stamp::of(&held), Stamp::of(&named));
    held.device == named.device && held.inode == named.inode
}

/// Returns the numbers in a lock's file: process and attempts.
fn words(file: &mut File) -> Vec<u32> {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.map(|_| text.split_whitespace().map_while(|word| word.parse().ok()).collect()).unwrap_or_default()
}

fn holder(file: &mut File) -> Holder {
    Holder { process: words(file).first().copied() }
}

impl Work {
    /// Returns the folder for files that become the artifact.
    #[must_use]
    pub fn out_dir(&self) -> PathBuf {
        self.folder.join("out")
    }

    /// Returns the folder for checkpoints.
    #[must_use]
    pub fn scratch_dir(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    /// Returns the log file.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Returns where a script may be left that repeats an attempt which failed.
    #[must_use]
    pub fn repro_path(&self) -> PathBuf {
        self.folder.join(REPRO)
    }

    /// Empties `out/`, makes sure `scratch/` exists, removes the script of a failed attempt, counts the attempt and
    /// returns how many came before. With `from_scratch`, checkpoints, log and count of earlier attempts are dropped
    /// first.
    ///
    /// # Errors
    /// [`CacheError`] if the folder cannot be written.
    pub fn begin(&mut self, from_scratch: bool) -> Result<Attempt, CacheError> {
        if !std::mem::take(&mut self.is_ready) {
            empty_folder(&self.out_dir())?;
            remove_file(&self.repro_path())?;
            if from_scratch {
                empty_folder(&self.scratch_dir())?;
                remove_file(&self.log_path())?;
                self.attempts = 0;
            }
            for folder in [self.out_dir(), self.scratch_dir()] {
                fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
            }
        }
        let earlier = self.attempts;
        self.attempts += 1;
        self.sign()?;
        Ok(Attempt { earlier })
    }

    /// Writes into the lock's file who holds it, and how many attempts were begun.
    fn sign(&self) -> Result<(), CacheError> {
        // As long as any earlier text of ours, so that nothing of that is left.
        let text = format!("{:<10} {:<10}\n", std::process::id(), self.attempts);
        let written = self.lock.write_all_at(text.as_bytes(), 0);
        written.map_err(CacheError::io("write", &self.folder.join("lock")))
    }

    /// Removes the folder.
    fn remove(self) -> Result<(), CacheError> {
        for folder in [self.out_dir(), self.scratch_dir()] {
            empty_folder(&folder)?;
            let _ = fs::remove_dir(&folder);
        }
        // The lock's file goes last: until then nobody else can hold it.
        for name in ["log", REPRO, "lock"] {
            remove_file(&self.folder.join(name))?;
        }
        match fs::remove_dir(&self.folder) {
            Ok(()) => Ok(()),
            // Somebody who waits has already put a new lock there.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(CacheError::io("write", &self.folder)(error)),
        }
    }
}

/// Removes everything in a folder, if there is one, also what lies in folders that were made read-only.
///
/// # Errors
/// [`CacheError`] if something cannot be removed.
pub fn empty_folder(folder: &Path) -> Result<(), CacheError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(CacheError::io("read", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(CacheError::io("read", folder))?;
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        let removed = match removed {
            Err(error) if is_folder && error.kind() == io::ErrorKind::PermissionDenied => {
                make_writable(&path).and_then(|()| fs::remove_dir_all(&path))
            }
            removed => removed,
        };
        removed.map_err(CacheError::io("remove", &path))?;
    }
    Ok(())
}

fn make_writable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CacheError::io("write", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn only_one_of_many_threads_holds_the_lock_at_a_time_though_each_removes_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let fingerprint = Digest::of(b"key");
        let (inside, total) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let mut work =
                            cache.lock(&fingerprint, &mut |_| ControlFlow::Continue(())).unwrap().expect("not broken");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two threads hold the lock");
                        work.begin(false).unwrap();
                        total.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        cache.finish(work).unwrap();
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 160);
    }

    #[test]
    fn who_waits_learns_who_holds_the_lock_and_may_give_up() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let fingerprint = Digest::of(b"key");
        let held = cache.lock(&fingerprint, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(held.is_some());
        let mut seen = None;
        let second = cache.lock(&fingerprint, &mut |holder| {
            seen = Some(holder.clone());
            ControlFlow::Break(())
        });
        assert!(second.unwrap().is_none());
        let us = Holder { process: Some(std::process::id()) };
        assert_eq!(seen, Some(us.clone()));
        assert_eq!(cache.running(&fingerprint).unwrap(), Some(us));
        drop(held);
        assert_eq!(cache.running(&fingerprint).unwrap(), None);
    }

    #[test]
    fn an_attempt_that_did_not_finish_keeps_its_checkpoint_but_not_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let take = || cache.lock(&Digest::of(b"key"), &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
        let mut work = take();
        assert_eq!(work.begin(false).unwrap().earlier, 0);
        fs::write(work.scratch_dir().join("checkpoint"), "7").unwrap();
        fs::write(work.out_dir().join("partial"), "x").unwrap();
        drop(work);

        let mut work = take();
        assert_eq!(work.begin(false).unwrap().earlier, 1);
        assert!(work.scratch_dir().join("checkpoint").is_file());
        assert!(!work.out_dir().join("partial").exists());
        assert_eq!(work.begin(true).unwrap().earlier, 0);
        assert!(!work.scratch_dir().join("checkpoint").exists());
    }

    #[test]
    fn a_finished_folder_is_used_again_and_empty() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let take = |key: &[u8]| cache.lock(&Digest::of(key), &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
        let mut work = take(b"one");
        work.begin(false).unwrap();
        fs::write(work.log_path(), "line").unwrap();
        fs::create_dir_all(work.scratch_dir().join("deep/er")).unwrap();
        fs::write(work.scratch_dir().join("deep/file"), "x").unwrap();
        fs::set_permissions(work.scratch_dir().join("deep"), Permissions::from_mode(0o555)).unwrap();
        cache.finish(work).unwrap();
        assert_eq!(cache.running(&Digest::of(b"one")).unwrap(), None);

        let mut work = take(b"two");
        assert_eq!(fs::read_dir(dir.path().join("work")).unwrap().count(), 1);
        let us = Holder { process: Some(std::process::id()) };
        assert_eq!(cache.running(&Digest::of(b"two")).unwrap(), Some(us));
        assert_eq!(work.begin(false).unwrap().earlier, 0);
        assert_eq!(fs::read(work.log_path()).unwrap(), b"");
        assert!(fs::read_dir(work.scratch_dir()).unwrap().next().is_none());
        cache.finish(work).unwrap();
        drop(cache);
        assert_eq!(fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
    }

    #[test]
    fn the_folder_of_a_holder_that_had_nothing_to_compute_is_complete_when_it_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let take = |key: &[u8]| cache.lock(&Digest::of(key), &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
        cache.finish(take(b"one")).unwrap();
        let mut work = take(b"two");
        work.begin(false).unwrap();
        assert!(work.out_dir().is_dir() && work.scratch_dir().is_dir());
    }

    #[test]
    fn a_spare_folder_does_not_replace_one_with_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let take = |key: &[u8]| cache.lock(&Digest::of(key), &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
        let mut work = take(b"one");
        work.begin(false).unwrap();
        fs::write(work.scratch_dir().join("checkpoint"), "7").unwrap();
        drop(work);
        let mut other = take(b"two");
        other.begin(false).unwrap();
        cache.finish(other).unwrap();

        let mut work = take(b"one");
        assert_eq!(work.begin(false).unwrap().earlier, 1);
        assert!(work.scratch_dir().join("checkpoint").is_file());
    }

    #[test]
    fn spare_folders_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Cache::open(dir.path()).unwrap(), Cache::open(dir.path()).unwrap());
        let mut work = theirs.lock(&Digest::of(b"key"), &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
        work.begin(false).unwrap();
        theirs.finish(work).unwrap();
        let dead = dir.path().join("work").join(format!("{SPARE}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "4242").unwrap();
        ours.remove_spares();
        assert!(!dead.exists());
        assert_eq!(fs::read_dir(dir.path().join("work")).unwrap().count(), 1);
    }
}
