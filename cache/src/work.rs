//! The folder of a running computation, `work/<fingerprint>/`, and the lock that makes it run once.
//!
//! The lock is `flock` on the file `lock`: the kernel releases it when the process ends, however it ends, so there is
//! nothing to unlock by hand and nothing stale. `scratch/` (checkpoints) and `log` outlive a killed process;
//! `out/` is emptied before every attempt. The folder goes away when the result is recorded.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
}

/// What is remembered about attempts at a computation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// How many earlier attempts did not finish.
    pub earlier: u32,
}

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
                    let process = std::process::id().to_string();
                    let named = file.set_len(0).and_then(|()| file.write_all(process.as_bytes()));
                    named.map_err(CacheError::io("write", &path))?;
                    return Ok(Some(Work { folder, lock: file }));
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
}

pub(crate) fn is_still_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    let (held, named) = (Stamp::of(&held), Stamp::of(&named));
    held.device == named.device && held.inode == named.inode
}

fn holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    Holder { process: read.ok().and_then(|_| text.trim().parse().ok()) }
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

    /// Empties `out/`, makes sure `scratch/` exists, counts the attempt and returns how many came before. With
    /// `from_scratch`, checkpoints, log and count of earlier attempts are dropped first.
    ///
    /// # Errors
    /// [`CacheError`] if the folder cannot be written.
    pub fn begin(&self, from_scratch: bool) -> Result<Attempt, CacheError> {
        remove_folder(&self.out_dir())?;
        if from_scratch {
            remove_folder(&self.scratch_dir())?;
            for name in ["log", "attempts"] {
                remove_file(&self.folder.join(name))?;
            }
        }
        for folder in [self.out_dir(), self.scratch_dir()] {
            fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        }
        let path = self.folder.join("attempts");
        let earlier = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        fs::write(&path, (earlier + 1_u32).to_string()).map_err(CacheError::io("write", &path))?;
        Ok(Attempt { earlier })
    }

    /// Removes the folder and gives the right back: the result is recorded and nothing here is needed any more.
    ///
    /// # Errors
    /// [`CacheError`] if the folder cannot be removed.
    pub fn finish(self) -> Result<(), CacheError> {
        for folder in [self.out_dir(), self.scratch_dir()] {
            remove_folder(&folder)?;
        }
        // The lock's file goes last: until then nobody else can hold it.
        for name in ["log", "attempts", "lock"] {
            remove_file(&self.folder.join(name))?;
        }
        let removed = fs::remove_dir(&self.folder);
        drop(self.lock);
        match removed {
            Ok(()) => Ok(()),
            // Somebody who waits has already put a new lock there.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(CacheError::io("write", &self.folder)(error)),
        }
    }
}

fn remove_folder(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CacheError::io("write", path)(error)),
        _ => Ok(()),
    }
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
                        let work =
                            cache.lock(&fingerprint, &mut |_| ControlFlow::Continue(())).unwrap().expect("not broken");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two threads hold the lock");
                        work.begin(false).unwrap();
                        total.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        work.finish().unwrap();
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
        let work = take();
        assert_eq!(work.begin(false).unwrap().earlier, 0);
        fs::write(work.scratch_dir().join("checkpoint"), "7").unwrap();
        fs::write(work.out_dir().join("partial"), "x").unwrap();
        drop(work);

        let work = take();
        assert_eq!(work.begin(false).unwrap().earlier, 1);
        assert!(work.scratch_dir().join("checkpoint").is_file());
        assert!(!work.out_dir().join("partial").exists());
        assert_eq!(work.begin(true).unwrap().earlier, 0);
        assert!(!work.scratch_dir().join("checkpoint").exists());
    }
}
