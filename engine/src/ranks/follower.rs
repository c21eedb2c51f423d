//! The other ranks' side: computes what rank 0 hands out, in a private folder of which nothing is kept.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::connection::{Connection, Tag, reason};
use super::job::Parcel;
use super::place::Place;
use super::{RankError, World};
use crate::capacity::Gpu;
use crate::executor::local::Local;
use crate::executor::{ExecutionError, Executor};
use crate::kind::{Device, ProgressSink, Registry, StageContext, StageError, StopFlag};

/// What a rank may use.
#[derive(Debug, Clone)]
pub struct FollowerOptions {
    /// How many threads.
    pub threads: usize,
    /// Where it computes.
    pub device: Device,
    /// The GPUs that are its own.
    pub gpus: Vec<Gpu>,
    /// Raised when the user wants to stop; all ranks do then.
    pub stop: StopFlag,
}

/// A rank that helps rank 0.
pub struct Follower {
    connection: Connection,
    rank: usize,
    size: usize,
}

impl Follower {
    /// Returns the rank at `place`, connected with rank 0.
    #[must_use]
    pub fn new(connection: Connection, place: &Place) -> Self {
        Self { connection, rank: place.rank, size: place.size }
    }

    /// Computes stage after stage until rank 0 says that it is done; `tell` hears the kind of each.
    ///
    /// # Errors
    /// [`RankError::Gone`] if rank 0 ends without saying so.
    pub fn follow(
        &self,
        registry: &Registry,
        options: &FollowerOptions,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), RankError> {
        let gone = |error: std::io::Error| RankError::Gone { rank: 0, size: self.size, why: reason(&error) };
        loop {
            match self.connection.receive().map_err(gone)? {
                (Tag::End, _) => return Ok(()),
                (Tag::Job, description) => {
                    let parcel = Parcel::receive(&description, &self.connection).map_err(gone)?;
                    tell(&parcel.job.kind);
                    let helper = Helper { follower: self, gone: OnceLock::new() };
                    let ended = work(&parcel, registry, options, &helper);
                    if let Some(error) = helper.gone.into_inner() {
                        return Err(error);
                    }
                    self.connection.send(Tag::Done, ended.err().unwrap_or_default().as_bytes()).map_err(gone)?;
                }
                // The rest of a stage that this rank has ended.
                _ => {}
            }
        }
    }
}

/// Computes a stage; the error is for rank 0.
fn work(parcel: &Parcel, registry: &Registry, options: &FollowerOptions, world: &Helper<'_>) -> Result<(), String> {
    let kind = registry.get(&parcel.job.kind).ok_or_else(|| format!("no stage kind `{}`", parcel.job.kind))?;
    let params = parcel.params()?;
    let folder = Folder::new()?;
    let [out_dir, scratch_dir] = ["out", "scratch"].map(|name| folder.0.join(name));
    for path in [&out_dir, &scratch_dir] {
        fs::create_dir(path).map_err(|error| format!("cannot create `{}`: {error}", path.display()))?;
    }
    let inputs = parcel.unpack(&folder.0.join("inputs"))?;
    let context = StageContext {
        inputs: &inputs,
        files: &std::collections::BTreeMap::new(),
        out_dir: &out_dir,
        scratch_dir: &scratch_dir,
        repro_path: &folder.0.join("repro.sh"),
        threads: options.threads,
        gpus: &options.gpus,
        device: options.device,
        world,
        // Rank 0 saves the state for all.
        checkpoint_every: Duration::MAX,
        progress: &Silent,
        stop: &options.stop,
    };
    match Local.execute(&*kind, &params, &context) {
        // Rank 0 knows: all stop at the same step.
        Ok(_) | Err(ExecutionError::Stage(StageError::Interrupted)) => Ok(()),
        Err(ExecutionError::Stage(error)) => Err(error.to_string()),
        Err(ExecutionError::Panicked { message }) => Err(format!("a bug of spdflow: {message}")),
    }
}

/// A folder for this process alone, removed with everything in it; those of ranks that were killed, by the next one.
struct Folder(PathBuf, File);

/// How the names of all ranks' folders begin.
const FOLDER: &str = "spdflow-rank-";

/// A folder may be older than this before its owner has locked it, but not by much.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);

impl Folder {
    fn new() -> Result<Self, String> {
        remove_orphans();
        let create = |path: &Path| {
            DirBuilder::new().mode(0o700).create(path)?;
            let folder = File::open(path)?;
            flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
            Ok::<_, std::io::Error>(folder)
        };
        let names = (0..1000).map(|n| std::env::temp_dir().join(format!("{FOLDER}{}-{n}", std::process::id())));
        let mut last = String::new();
        for path in names {
            match create(&path) {
                Ok(folder) => return Ok(Self(path, folder)),
                Err(error) => last = format!("cannot create `{}`: {error}", path.display()),
            }
        }
        Err(last)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Self(path, _locked) = self;
        let _ = fs::remove_dir_all(path);
    }
}

/// Removes the folders whose owners were killed: nobody has them locked.
fn remove_orphans() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let is_old =
            |metadata: fs::Metadata| metadata.modified().ok()?.elapsed().ok().filter(|age| *age > LOCKED_WITHIN);
        let is_candidate = entry.file_name().to_string_lossy().starts_with(FOLDER)
            && entry.metadata().ok().filter(fs::Metadata::is_dir).and_then(is_old).is_some();
        let is_orphan = is_candidate
            && File::open(entry.path())
                .is_ok_and(|folder| flock(folder, FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_orphan {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The world of a stage, seen from this rank.
struct Helper<'a> {
    follower: &'a Follower,
    /// How rank 0 was missed.
    gone: OnceLock<RankError>,
}

impl Helper<'_> {
    fn gone(&self, error: &std::io::Error) -> RankError {
        let error = RankError::Gone { rank: 0, size: self.follower.size, why: reason(error) };
        self.gone.get_or_init(|| error.clone());
        error
    }
}

impl World for Helper<'_> {
    fn rank(&self) -> usize {
        self.follower.rank
    }

    fn size(&self) -> usize {
        self.follower.size
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<(), RankError> {
        assert_eq!(to, 0, "rank {} speaks with rank 0 only", self.follower.rank);
        self.follower.connection.send(Tag::Message, message).map_err(|error| self.gone(&error))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RankError> {
        assert_eq!(from, 0, "rank {} speaks with rank 0 only", self.follower.rank);
        match self.follower.connection.receive() {
            Ok((Tag::Message, message)) => Ok(message),
            Ok((Tag::Over, _)) => Err(RankError::Over),
            Ok((tag, _)) => {
                let (expected, found) = ("a message".to_owned(), format!("{tag:?}"));
                Err(RankError::Confused { rank: 0, size: self.size(), expected, found })
            }
            Err(error) => Err(self.gone(&error)),
        }
    }

    fn trouble(&self) -> Option<RankError> {
        match self.follower.connection.glance() {
            Ok(Some((Tag::Over, _))) => Some(RankError::Over),
            Ok(_) => None,
            Err(error) => Some(self.gone(&error)),
        }
    }
}

/// Rank 0 reports for all.
struct Silent;

impl ProgressSink for Silent {
    fn step(&self, _: u64, _: u64, _: Option<(&str, f64)>) {}
    fn resumed(&self, _: u64) {}
    fn log(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn folders_that_killed_ranks_left_are_removed_and_those_in_use_are_not() {
        let orphan = std::env::temp_dir().join(format!("{FOLDER}test-{}", std::process::id()));
        fs::create_dir_all(orphan.join("inputs")).unwrap();
        let long_ago = SystemTime::now() - 2 * LOCKED_WITHIN;
        let in_use = Folder::new().unwrap();
        in_use.1.set_modified(long_ago).unwrap();
        assert!(orphan.exists(), "a new folder may be about to be locked");
        File::open(&orphan).unwrap().set_modified(long_ago).unwrap();
        remove_orphans();
        assert!(!orphan.exists() && in_use.0.exists());
        let path = in_use.0.clone();
        drop(in_use);
        assert!(!path.exists());
    }
}
