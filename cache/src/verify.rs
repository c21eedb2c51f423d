//! Reads the whole cache and reports what is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{BlobState, Cache, CacheError, Digest, Lookup};

/// What a look at the whole cache found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Blobs read.
    pub blobs: u64,
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub size_bytes: u64,
    /// What is wrong. Damaged files lie in quarantine now.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A blob's bytes have another digest than its name.
    DamagedBlob {
        /// Its name.
        digest: Digest,
        /// Where it lies now.
        quarantined: PathBuf,
    },
    /// A record cannot be trusted.
    CorruptRecord {
        /// Its name.
        fingerprint: Digest,
        /// What is wrong with it.
        reason: String,
        /// Where it lies now.
        quarantined: PathBuf,
    },
    /// A record names an output whose bytes are gone; its stage will run again when it is needed.
    MissingBlob {
        /// The record.
        fingerprint: Digest,
        /// The output.
        output: String,
    },
    /// A file that does not belong where it is.
    Stray {
        /// The file.
        path: PathBuf,
    },
}

impl Cache {
    /// Reads every blob and every record.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn verify(&self) -> Result<Verification, CacheError> {
        let mut result = Verification::default();
        for (path, digest) in self.files("blobs", "")? {
            let Some(digest) = digest else {
                result.problems.push(Problem::Stray { path });
                continue;
            };
            result.blobs += 1;
            result.size_bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if let BlobState::Damaged { quarantined } = self.check_blob(&digest)? {
                result.problems.push(Problem::DamagedBlob { digest, quarantined });
            }
        }
        for (path, digest) in self.files("records", ".json")? {
            let Some(fingerprint) = digest else {
                result.problems.push(Problem::Stray { path });
                continue;
            };
            result.records += 1;
            match self.lookup(&fingerprint)? {
                Lookup::Hit(_) | Lookup::Miss => {}
                Lookup::MissingBlob { output } => result.problems.push(Problem::MissingBlob { fingerprint, output }),
                Lookup::Corrupt { reason, quarantined } => {
                    result.problems.push(Problem::CorruptRecord { fingerprint, reason, quarantined });
                }
            }
        }
        Ok(result)
    }

    /// Returns the fingerprints of up to `most` records, in no particular order; of folders that cannot be read, none.
    #[must_use]
    pub fn fingerprints(&self, most: usize) -> Vec<Digest> {
        let heads = list(&self.root().join("records")).unwrap_or_default();
        let paths = heads.iter().flat_map(|head| list(head).unwrap_or_default());
        paths.filter_map(|path| digest_of(&path, ".json")).take(most).collect()
    }

    /// Lists `<folder>/ab/cdef…<suffix>` in order, with the digest each name stands for.
    pub(crate) fn files(&self, folder: &str, suffix: &str) -> Result<Vec<(PathBuf, Option<Digest>)>, CacheError> {
        let mut found = Vec::new();
        for head in list(&self.root().join(folder))? {
            if !head.is_dir() {
                found.push((head, None));
                continue;
            }
            for path in list(&head)? {
                let digest = digest_of(&path, suffix);
                found.push((path, digest));
            }
        }
        Ok(found)
    }
}

/// Returns the digest that the path `…/ab/cdef…<suffix>` stands for.
pub(crate) fn digest_of(path: &Path, suffix: &str) -> Option<Digest> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (name(path.parent()?) + name(path).strip_suffix(suffix)?).parse().ok()
}

pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let entries = fs::read_dir(folder).map_err(CacheError::io("read", folder))?;
    let mut paths: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(CacheError::io("read", folder))?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_class_of_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let record = crate::record::tests::example(&cache, Digest::of(b"key"));
        cache.put_record(&record).unwrap();
        assert_eq!(cache.verify().unwrap().problems, []);

        let damaged = cache.blob_path(&record.artifact.outputs[0].digest);
        fs::set_permissions(&damaged, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&damaged, "!!").unwrap();
        let stray = dir.path().join("blobs/readme.txt");
        fs::write(&stray, "hello").unwrap();
        let other = Digest::of(b"other");
        let corrupt = cache.record_path(&other);
        fs::create_dir_all(corrupt.parent().unwrap()).unwrap();
        fs::write(&corrupt, "{}").unwrap();

        let problems = cache.verify().unwrap().problems;
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems.contains(&Problem::Stray { path: stray.canonicalize().unwrap() }));
        let missing = Problem::MissingBlob { fingerprint: record.fingerprint, output: "a.json".to_owned() };
        assert!(problems.contains(&missing));
    }
}
