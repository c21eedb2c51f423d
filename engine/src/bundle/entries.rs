//! What lies in a bundle, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use spdflow_cache::{Cache, CacheError, Digest};

use super::blobs::{BlobOf, blobs_of};
use super::{BundleError, Packing};
use crate::lock::{Lock, LockedStage};
use crate::pipeline::Pipeline;
use crate::present::Present;
use crate::run::Recipe;

/// The folder of the pipeline's files.
pub(super) const PIPELINE: &str = "pipeline";
/// The lock file.
pub(super) const LOCK: &str = "pipeline.lock";
/// The folder of the cache.
pub(super) const CACHE: &str = "cache";
/// What a stranger reads first.
pub(super) const REPRODUCE: &str = "REPRODUCE.md";
/// The script that computes everything anew.
pub(super) const SCRIPT: &str = "repro.sh";

/// What is in a file of a bundle.
#[derive(Debug)]
pub(super) enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of a blob.
    Blob(Digest),
}

/// The files of a bundle by path, but for those that are written last: they tell of the others.
pub(super) type Entries = BTreeMap<String, Content>;

/// Returns the permissions of a file, which follow from where it lies.
pub(super) fn mode(path: &str) -> u32 {
    match path.strip_prefix(CACHE).and_then(|below| below.strip_prefix("/blobs/")) {
        Some(_) => 0o444,
        None if path.ends_with(".sh") => 0o755,
        None => 0o644,
    }
}

/// Adds the files of the pipeline, and returns where its text lies.
pub(super) fn of_pipeline(pipeline: &Pipeline, entries: &mut Entries) -> Result<String, BundleError> {
    let (recipe, bytes) = Recipe::of(pipeline, &[]);
    let place = |below: &str| joined(PIPELINE, Path::new(below), Path::new(below));
    for (part, bytes) in recipe.parts.iter().zip(bytes) {
        entries.insert(place(&part.place)?, Content::Bytes(bytes.to_vec()));
    }
    place(&recipe.file)
}

/// Adds the lock file and everything of the cache that belongs to the results; returns the blobs among it by digest.
pub(super) fn of_cache(packing: &Packing<'_>, entries: &mut Entries) -> Result<BTreeMap<Digest, BlobOf>, BundleError> {
    let cache = packing.cache;
    entries.insert(LOCK.to_owned(), Content::Bytes(lock(packing).text().into_bytes()));
    for name in ["VERSION", ".gitignore"] {
        add_file(entries, &cache.root().join(name), format!("{CACHE}/{name}"))?;
    }
    let mut runs = BTreeSet::new();
    for result in packing.results {
        let record = &result.record;
        let place = placed("records", &record.fingerprint) + ".json";
        entries.insert(place, Content::Bytes(record_bytes(packing.cache, result)?));
        runs.insert(record.run.as_str());
    }
    let blobs = blobs_of(cache, packing.results);
    if !packing.digests_only {
        entries.extend(blobs.keys().map(|digest| (placed("blobs", digest), Content::Blob(*digest))));
    }
    for run in runs {
        // A record from elsewhere may call its run as it likes.
        let is_plain = !run.is_empty() && !run.starts_with('.') && !run.contains(['/', '\\', '\0']);
        let folder = cache.root().join("runs").join(run);
        if is_plain && folder.is_dir() {
            // What a repetition made lies in a folder below, and is not of this run.
            add_files(entries, &folder, &format!("{CACHE}/runs/{run}"), false)?;
        }
    }
    add_files(entries, &cache.root().join("log"), &format!("{CACHE}/log"), true)?;
    Ok(blobs)
}

/// Returns the bytes of a record's file, as it was when the result was found.
fn record_bytes(cache: &Cache, result: &Present) -> Result<Vec<u8>, BundleError> {
    let path = cache.record_path(&result.record.fingerprint);
    let bytes = fs::read(&path).map_err(CacheError::io("read", &path))?;
    if Digest::of(&bytes) == result.digest {
        return Ok(bytes);
    }
    // Another run has made the result again meanwhile.
    let changed = io::Error::other("it was written anew meanwhile; bundle it again");
    Err(CacheError::io("read", &path)(changed).into())
}

/// Returns `cache/<folder>/ab/cdef…`.
pub(super) fn placed(folder: &str, digest: &Digest) -> String {
    let text = digest.to_string();
    let (head, tail) = text.split_at(2);
    format!("{CACHE}/{folder}/{head}/{tail}")
}

fn lock(packing: &Packing<'_>) -> Lock {
    let locked = packing.results.iter().map(|result| {
        let artifact = &result.record.artifact;
        let stage = LockedStage {
            fingerprint: result.record.fingerprint,
            artifact: artifact.digest,
            record: Some(result.digest),
            outputs: artifact.outputs.iter().map(|output| (output.path.clone(), output.digest)).collect(),
        };
        (result.instance.clone(), stage)
    });
    Lock::new(&packing.pipeline.name, locked.collect())
}

/// Adds the files of a folder, if there is one; links and the like are not files.
fn add_files(entries: &mut Entries, folder: &Path, place: &str, is_deep: bool) -> Result<(), BundleError> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(CacheError::io("read", folder))?,
    };
    for entry in listed {
        let entry = entry.map_err(CacheError::io("read", folder))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(CacheError::io("read", &entry.path()))?);
        let place = joined(place, &path, Path::new(&entry.file_name()))?;
        if kind.is_dir() && is_deep {
            add_files(entries, &path, &place, true)?;
        } else if kind.is_file() {
            add_file(entries, &path, place)?;
        }
    }
    Ok(())
}

fn add_file(entries: &mut Entries, path: &Path, place: String) -> Result<(), BundleError> {
    match fs::read(path) {
        Ok(bytes) => drop(entries.insert(place, Content::Bytes(bytes))),
        // Removed since its folder was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(CacheError::io("read", path)(error).into()),
    }
    Ok(())
}

/// Returns where a file lies in the bundle that lies at `below` in what becomes the folder `place`.
fn joined(place: &str, path: &Path, below: &Path) -> Result<String, BundleError> {
    let mut joined = place.to_owned();
    for part in below.components() {
        let part = part.as_os_str().to_str().filter(|part| !part.contains('\\'));
        let part = part.ok_or_else(|| BundleError::Name { path: path.to_owned() })?;
        if part != "/" {
            joined.push('/');
            joined.push_str(part);
        }
    }
    Ok(joined)
}

/// Returns the folders of a cache, also those in which nothing lies.
pub(super) fn cache_folders() -> impl Iterator<Item = String> {
    spdflow_cache::FOLDERS.into_iter().map(|folder| format!("{CACHE}/{folder}"))
}
