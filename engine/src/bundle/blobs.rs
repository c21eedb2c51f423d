//! The blobs that belong to results: their files and logs.

use std::collections::BTreeMap;
use std::fs::File;

use spdflow_cache::{Cache, CacheError, Digest};

use super::BundleError;
use crate::present::Present;
use crate::sums::Sums;

/// A blob of a result, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct BlobOf {
    instance: String,
    output: String,
}

/// Returns the blobs of results.
pub(crate) fn blobs_of(cache: &Cache, results: &[Present]) -> BTreeMap<Digest, BlobOf> {
    let mut blobs = BTreeMap::new();
    for Present { instance, record, .. } in results {
        let named = |output: &str| BlobOf { instance: instance.clone(), output: output.to_owned() };
        for output in &record.artifact.outputs {
            blobs.entry(output.digest).or_insert_with(|| named(&output.path));
        }
        // A result is whole without its log.
        if let Some(log) = record.log.filter(|log| cache.blob_path(log).is_file()) {
            blobs.entry(log).or_insert_with(|| named("log"));
        }
    }
    blobs
}

/// Returns the sums of blobs, of which every byte is read.
///
/// # Errors
/// [`BundleError`] if one cannot be read, or has other bytes than its name says.
pub(crate) fn sums_of_blobs(
    cache: &Cache,
    blobs: &BTreeMap<Digest, BlobOf>,
) -> Result<BTreeMap<Digest, Sums>, BundleError> {
    let mut sums = BTreeMap::new();
    for (digest, of) in blobs {
        let found = Sums::of_reader(open_blob(cache, digest)?);
        let found = found.map_err(BundleError::io("read", &cache.blob_path(digest)))?;
        if found.blake3 != *digest {
            return Err(damaged(cache, digest, of));
        }
        sums.insert(*digest, found);
    }
    Ok(sums)
}

/// Returns the error for a blob with other bytes than its name says.
pub(crate) fn damaged(cache: &Cache, digest: &Digest, of: &BlobOf) -> BundleError {
    let BlobOf { instance, output } = of.clone();
    BundleError::DamagedBlob { instance, output, path: cache.blob_path(digest) }
}

/// Returns a blob as a file to read.
pub(crate) fn open_blob(cache: &Cache, digest: &Digest) -> Result<File, CacheError> {
    let path = cache.blob_path(digest);
    File::open(&path).map_err(CacheError::io("read", &path))
}
