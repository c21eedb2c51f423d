//! From the bytes of a file to how they were made.
//!
//! A file is known by its digest alone, wherever it lies and whatever it is called now: as a file of a result, a stage's log, a
//! file of a run, a checkpoint, a record. Looks that change nothing in the cache are all it takes.

mod family;
mod likeness;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use spdflow_cache::{Cache, CacheError, Digest, Output, Record, Untrusted};

use crate::sums::Sums;
pub use family::{Input, Producer};
pub use likeness::{Alike, Nearest};

/// What a cache knows of some bytes.
#[derive(Debug)]
pub struct Trace {
    /// Where they are known, results first, the earliest first.
    pub places: Vec<Place>,
    /// Records that could not be trusted, and were not searched.
    pub untrusted: Vec<Untrusted>,
    /// Every record that was searched.
    records: Vec<Record>,
}

/// A place at which bytes are known.
#[derive(Debug)]
pub enum Place {
    /// They are a file of a result.
    Output {
        /// The result.
        record: Box<Record>,
        /// The file.
        output: Output,
        /// What it was made from.
        inputs: Vec<Input>,
        /// Where the same bytes lie among the results that are in place.
        in_place: Option<PathBuf>,
    },
    /// They are the log of the stage that made a result.
    Log {
        /// The result.
        record: Box<Record>,
    },
    /// They are the record of a result.
    Record {
        /// The result.
        record: Box<Record>,
    },
    /// They are a file of a run's folder.
    Run {
        /// The run.
        run: String,
        /// The file's path in the folder.
        file: String,
    },
    /// They are a file of a computation that is under way or was cut short: a checkpoint, an output, a log.
    Work {
        /// The folder's name, which is the fingerprint of what is computed.
        fingerprint: String,
        /// The file's path in the folder.
        file: String,
        /// The instance, if a run has told of it.
        instance: Option<String>,
        /// The last run that told of it.
        run: Option<String>,
    },
    /// They are some other file of the cache.
    Other {
        /// The file's path in the cache.
        file: String,
    },
    /// They lie in the cache, but no record names them.
    Blob,
}

/// Finds out what the cache knows of these bytes; `out` is the folder of results that are in place.
///
/// # Errors
/// [`CacheError`] if the cache cannot be read.
pub fn trace(cache: &Cache, sums: &Sums, out: &Path) -> Result<Trace, CacheError> {
    let (mut records, untrusted) = cache.peek_all()?;
    records
        .sort_by(|left, right| (&left.times.started, left.fingerprint).cmp(&(&right.times.started, right.fingerprint)));
    let (mut results, mut others) = (Vec::new(), Vec::new());
    let family = family::Family::new(&records);
    for record in &records {
        for output in record.artifact.outputs.iter().filter(|output| output.digest == sums.blake3) {
            results.push(Place::Output {
                record: Box::new(record.clone()),
                output: output.clone(),
                inputs: family.inputs(record),
                in_place: in_place(out, record, output),
            });
        }
        if record.log == Some(sums.blake3) {
            others.push(Place::Log { record: Box::new(record.clone()) });
        }
        let file = cache.record_path(&record.fingerprint);
        if has_size(&file, sums.size_bytes) && cache.record_digest(&record.fingerprint)? == Some(sums.blake3) {
            others.push(Place::Record { record: Box::new(record.clone()) });
        }
    }
    let mut places = results;
    places.append(&mut others);
    for folder in ["runs", "work", "log", "quarantine"] {
        for file in files_of(cache, folder, sums)? {
            places.push(place_of(cache, folder, file)?);
        }
    }
    let is_named = places.iter().any(|place| matches!(place, Place::Output { .. } | Place::Log { .. }));
    if !is_named && cache.has_blob(&sums.blake3, sums.size_bytes) {
        places.push(Place::Blob);
    }
    Ok(Trace { places, untrusted, records })
}

/// Returns the place of a result's file among those in place, if the same bytes are there.
fn in_place(out: &Path, record: &Record, output: &Output) -> Option<PathBuf> {
    let mut path = out.join(&record.pipeline);
    // A name as `InstanceId` writes it.
    match record.instance.split_once('[') {
        Some((stage, axes)) => {
            path.push(stage);
            path.extend(axes.strip_suffix(']')?.split(','));
        }
        None => path.push(&record.instance),
    }
    path.push(&output.path);
    let is_same =
        has_size(&path, output.size_bytes) && fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == output.digest);
    is_same.then_some(path)
}

fn has_size(path: &Path, size_bytes: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size_bytes)
}

/// Returns the paths, below a folder of the cache, of the files with these bytes.
fn files_of(cache: &Cache, folder: &str, sums: &Sums) -> Result<Vec<String>, CacheError> {
    let root = cache.root().join(folder);
    let (mut open, mut found) = (vec![root.clone()], Vec::new());
    while let Some(path) = open.pop() {
        // What goes away meanwhile is not there.
        for entry in fs::read_dir(&path).into_iter().flatten() {
            let entry = entry.map_err(CacheError::io("read", &path))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(CacheError::io("read", &path))?);
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && has_size(&path, sums.size_bytes) {
                let same = fs::File::open(&path).and_then(Sums::of_reader).is_ok_and(|found| found == *sums);
                let below = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
                found.extend(same.then_some(below));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn place_of(cache: &Cache, folder: &str, below: String) -> Result<Place, CacheError> {
    match (folder, below.split_once('/')) {
        ("runs", Some((run, file))) => Ok(Place::Run { run: run.to_owned(), file: file.to_owned() }),
        ("work", Some((fingerprint, file))) => {
            let (run, instance) = told(cache, fingerprint)?.unzip();
            Ok(Place::Work { fingerprint: fingerprint.to_owned(), file: file.to_owned(), instance, run })
        }
        _ => Ok(Place::Other { file: format!("{folder}/{below}") }),
    }
}

/// Returns the last run that told of a fingerprint, and the instance it was of.
fn told(cache: &Cache, fingerprint: &str) -> Result<Option<(String, String)>, CacheError> {
    #[derive(Deserialize)]
    struct Line {
        instance: String,
        fingerprint: Option<String>,
    }
    for run in cache.runs()?.into_iter().rev() {
        for file in ["journal.jsonl", "plan.jsonl"] {
            let text = fs::read_to_string(run.path.join(file)).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains(fingerprint));
            let mut told = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
            if let Some(line) = told.find(|line| line.fingerprint.as_deref() == Some(fingerprint)) {
                return Ok(Some((run.id, line.instance)));
            }
        }
    }
    Ok(None)
}
