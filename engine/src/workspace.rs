//! The cache, the output folder and the memo between them: finds out whether a result is known and in place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spdflow_cache::{
    Artifact, Cache, CacheError, Digest, FolderMemo, FolderState, Lookup, Memos, Metric, Output, Record,
};

use crate::artifact::{MANIFEST, edited_file};
use crate::error::RunError;
use crate::outputs::{OutputRoot, Placed};
use crate::pipeline::{Instance, Pipeline};

/// One pipeline's results and the cache they come from.
#[derive(Debug)]
pub struct Workspace<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) out: OutputRoot,
    memo_key: PathBuf,
    memos: Mutex<Memos>,
}

/// What is known of a result that exists.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) artifact: Digest,
    pub(crate) files: Files,
    pub(crate) headline: Option<Metric>,
}

/// The files of a result: whoever needs it holds the same list.
#[derive(Debug, Clone)]
pub(crate) enum Files {
    /// As a record names them.
    Recorded(Arc<Vec<Output>>),
    /// As they were seen in place.
    Seen(Arc<FolderMemo>),
}

impl Files {
    /// Returns path, digest and size of each file.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Digest, u64)> {
        let count = match self {
            Self::Recorded(outputs) => outputs.len(),
            Self::Seen(memo) => memo.files.len(),
        };
        (0..count).map(move |index| match self {
            Self::Recorded(outputs) => {
                let file = &outputs[index];
                (file.path.as_str(), file.digest, file.size_bytes)
            }
            Self::Seen(memo) => {
                let file = &memo.files[index];
                (file.path.as_str(), file.digest, file.stamp.size_bytes)
            }
        })
    }
}

/// What became of a search for the result of a fingerprint.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is in place.
    Fresh(Known),
    /// The cache has it; it has to be put in place.
    Cached { known: Known, outputs: Vec<Output>, why: String },
    /// It has to be computed.
    Absent { why: String },
}

impl<'a> Workspace<'a> {
    /// Returns the workspace of `pipeline` with its results below `out`.
    #[must_use]
    pub fn new(cache: &'a Cache, out: &Path, pipeline: &Pipeline) -> Self {
        let path = out.join(&pipeline.name);
        // The memo belongs to the place, however it was named on the command line.
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let memos = Mutex::new(cache.read_memos(&absolute));
        Self { cache, out: OutputRoot::new(path), memo_key: absolute, memos }
    }

    /// Returns the cache.
    #[must_use]
    pub fn cache(&self) -> &'a Cache {
        self.cache
    }

    /// Returns the folder in which the instance's artifact appears.
    #[must_use]
    pub fn folder(&self, instance: &Instance) -> PathBuf {
        self.out.path().join(instance.out_path())
    }

    /// Returns the fingerprint of the result that was last put in the instance's place.
    pub(crate) fn in_place(&self, instance: &Instance) -> Option<Digest> {
        self.memos().get(&memo_name(instance)).map(|memo| memo.fingerprint)
    }

    /// Returns what was noted when the instance's place was last looked at.
    pub(crate) fn memo(&self, instance: &Instance) -> Option<Arc<FolderMemo>> {
        self.memos().get(&memo_name(instance))
    }

    pub(crate) fn write_memos(&self) -> Result<(), CacheError> {
        self.cache.write_memos(&self.memo_key, &mut self.memos())
    }

    fn memos(&self) -> MutexGuard<'_, Memos> {
        // Memos are replaced whole; a panic elsewhere cannot leave half of one.
        self.memos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns, by instance, the memos of results of which certainly nothing has changed; asks about all of them at once.
    pub(crate) fn untouched(&self, pipeline: &Pipeline, wanted: &[bool]) -> Vec<Option<Arc<FolderMemo>>> {
        let mut untouched = vec![None; pipeline.instances.len()];
        let memos = self.memos();
        let known = (0..wanted.len()).filter(|index| wanted[*index]).filter_map(|index| {
            let name = memo_name(&pipeline.instances[index]);
            let memo = memos.get(&name)?;
            Some((index, (name, memo)))
        });
        let (indices, questions): (Vec<usize>, Vec<_>) = known.unzip();
        drop(memos);
        let known: Vec<_> = questions.iter().map(|(_, memo)| memo.clone()).collect();
        let answers = self.cache.untouched(&self.memo_key, questions);
        for ((index, memo), is_untouched) in indices.into_iter().zip(known).zip(answers) {
            untouched[index] = is_untouched.then_some(memo);
        }
        untouched
    }

    /// Looks for the result of `fingerprint`; `warn` hears of damage and edits that were noticed on the way.
    pub(crate) fn find(
        &self,
        instance: &Instance,
        fingerprint: &Digest,
        warn: &mut dyn FnMut(String),
    ) -> Result<Found, CacheError> {
        let below = memo_name(instance);
        let folder = self.folder(instance);
        let memo = self.memos().get(&below);
        if let Some(memo) = memo.as_ref().filter(|memo| memo.fingerprint == *fingerprint && self.holds(memo)) {
            match memo.compare(&folder) {
                FolderState::Unchanged => return Ok(Found::Fresh(known_of_memo(memo))),
                FolderState::Rehashed => {
                    self.remember(instance, *fingerprint, &known_of_memo(memo));
                    return Ok(Found::Fresh(known_of_memo(memo)));
                }
                FolderState::Absent | FolderState::Changed(_) => {}
            }
        }
        let record = match self.cache.lookup(fingerprint)? {
            Lookup::Hit(record) => record,
            Lookup::Miss => {
                let why = if memo.is_some() || folder.exists() {
                    "parameters, inputs or version changed"
                } else {
                    "no earlier result"
                };
                return Ok(Found::Absent { why: why.to_owned() });
            }
            Lookup::MissingBlob { output } => match self.heal(fingerprint, &folder)? {
                Some(record) => {
                    warn(format!("file `{output}` was missing from the cache and was taken from the results"));
                    record
                }
                None => return Ok(Found::Absent { why: format!("file `{output}` is missing from the cache") }),
            },
            Lookup::Corrupt { reason, quarantined } => {
                let place = quarantined.display();
                warn(format!("its record in the cache is damaged ({reason}) and was moved to `{place}`"));
                return Ok(Found::Absent { why: "its record in the cache was damaged".to_owned() });
            }
        };
        let known = known_of_record(&record);
        let why = match differs(&folder, &record.artifact.outputs) {
            None => {
                self.remember(instance, *fingerprint, &known);
                return Ok(Found::Fresh(known));
            }
            Some(Difference::Absent) => "its result is not in place",
            Some(Difference::Changed) if !folder.join(MANIFEST).is_file() => "something else is in its place",
            Some(Difference::Changed) => match edited_file(&folder) {
                Some(file) => {
                    let place = folder.display();
                    warn(format!("`{file}` in `{place}` was changed by somebody else; the result is restored"));
                    "its result was edited"
                }
                None => "another result is in its place",
            },
        };
        Ok(Found::Cached { known, outputs: record.artifact.outputs, why: why.to_owned() })
    }

    /// Whether the record the memo was made from is unchanged and its blobs are present.
    fn holds(&self, memo: &FolderMemo) -> bool {
        self.cache.record_stamp(&memo.fingerprint) == Some(memo.record)
            && memo.files.iter().all(|file| self.cache.has_blob(&file.digest, file.stamp.size_bytes))
    }

    /// Brings blobs back from the result's folder if that still holds exactly what the record says.
    pub(crate) fn heal(&self, fingerprint: &Digest, folder: &Path) -> Result<Option<Box<Record>>, CacheError> {
        let Lookup::Hit(record) = self.cache.read_record(fingerprint)? else { return Ok(None) };
        if differs(folder, &record.artifact.outputs).is_some() {
            return Ok(None);
        }
        for output in &record.artifact.outputs {
            if !self.cache.has_blob(&output.digest, output.size_bytes) {
                self.cache.store_file(&folder.join(&output.path))?;
            }
        }
        Ok(Some(record))
    }

    /// Puts a result in place and remembers that it is there.
    pub(crate) fn place(
        &self,
        instance: &Instance,
        fingerprint: &Digest,
        known: &Known,
        outputs: &[Output],
    ) -> Result<Placed, RunError> {
        let placed = self.out.place(self.cache, &instance.id.to_string(), &instance.out_path(), outputs)?;
        if matches!(placed, Placed::Whole) {
            self.remember(instance, *fingerprint, known);
        }
        Ok(placed)
    }

    fn remember(&self, instance: &Instance, fingerprint: Digest, known: &Known) {
        let Some(record) = self.cache.record_stamp(&fingerprint) else { return };
        let files: Vec<_> = known.files.iter().map(|(path, digest, _)| (path.to_owned(), digest)).collect();
        let headline = known.headline.as_ref().map(|metric| (metric.name.clone(), metric.value));
        let folder = self.folder(instance);
        if let Some(memo) = FolderMemo::take(&folder, fingerprint, known.artifact, record, headline, &files) {
            self.memos().insert(memo_name(instance), memo);
        }
    }
}

enum Difference {
    Absent,
    Changed,
}

fn differs(folder: &Path, outputs: &[Output]) -> Option<Difference> {
    if folder.symlink_metadata().is_err() {
        return Some(Difference::Absent);
    }
    let expected: Vec<_> = outputs.iter().map(|output| (output.path.as_str(), output.digest)).collect();
    Cache::compare_folder(folder, &expected).map(|_| Difference::Changed)
}

fn memo_name(instance: &Instance) -> String {
    instance.out_path().to_string_lossy().into_owned()
}

pub(crate) fn known_of_memo(memo: &Arc<FolderMemo>) -> Known {
    Known {
        artifact: memo.artifact,
        files: Files::Seen(memo.clone()),
        headline: memo.headline.clone().map(|(name, value)| Metric { name, value }),
    }
}

fn known_of_record(record: &Record) -> Known {
    known_of(&record.artifact, &record.metrics)
}

pub(crate) fn known_of(artifact: &Artifact, metrics: &[Metric]) -> Known {
    Known {
        artifact: artifact.digest,
        files: Files::Recorded(Arc::new(artifact.outputs.clone())),
        headline: metrics.first().cloned(),
    }
}
