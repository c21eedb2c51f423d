//! `bundle.json`: what a bundle holds, and how the pipeline in it was called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spdflow_cache::Digest;

use super::entries::LOCK;
use crate::sums::Sums;

/// The first file of every bundle.
pub const MANIFEST: &str = "bundle.json";

/// The format of bundles; goes up when an older spdflow could misread a newer one.
pub(super) const FORMAT: u32 = 1;

/// The contents of `bundle.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format, 1.
    pub format: u32,
    /// The pipeline's name.
    pub name: String,
    /// The pipeline's text among the files.
    pub pipeline: String,
    /// How the pipeline was called.
    pub arguments: Arguments,
    /// The environment variables that the pipeline looks at, with the values they had; null for one that was not set.
    pub variables: BTreeMap<String, Option<String>>,
    /// Every other file, by path.
    pub files: Vec<FileEntry>,
    /// The files of results that only their sums are here of, by digest; none if the results themselves are here.
    pub left_out: Vec<LeftOut>,
}

/// How a pipeline was called: what besides its text decides which results it has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// The profile.
    pub profile: Option<String>,
    /// The sweep.
    pub sweep: Option<String>,
    /// What was set, as `KEY=VALUE`.
    pub set: Vec<String>,
    /// The stages that were named; all of them if none was.
    pub stages: Vec<String>,
    /// The device, as `--device` reads it.
    pub device: String,
    /// How many processes computed a stage together.
    pub ranks: usize,
}

impl Arguments {
    /// Returns the words behind the pipeline on a command line that calls it so again.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let option = |name: &str, value: &String| format!("--{name}={value}");
        let mut words = Vec::new();
        words.extend(self.profile.iter().map(|name| option("profile", name)));
        words.extend(self.sweep.iter().map(|name| option("sweep", name)));
        words.extend(self.set.iter().map(|pair| option("set", pair)));
        words.push(option("device", &self.device));
        words.extend((self.ranks > 1).then(|| format!("--ranks={}", self.ranks)));
        words.extend(self.stages.iter().cloned());
        words
    }
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where it lies, with `/` as separator.
    pub path: String,
    /// What is in it.
    #[serde(flatten)]
    pub sums: Sums,
}

/// A file of a result that is not in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Its BLAKE3, by which the records name it.
    pub blake3: Digest,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size.
    pub size_bytes: u64,
}

impl Manifest {
    /// Returns the file's text.
    pub(super) fn text(&self) -> String {
        // Texts, numbers and lists only: serialising them cannot fail.
        serde_json::to_string_pretty(self).expect("a manifest is plain data") + "\n"
    }

    /// Returns the manifest that a file's bytes hold.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let wrong = |error: serde_json::Error| format!("its `{MANIFEST}` cannot be read: {error}");
        let Format { format } = serde_json::from_slice(bytes).map_err(wrong)?;
        if format != FORMAT {
            return Err(format!("its `{MANIFEST}` has format {format}, this spdflow reads format {FORMAT}"));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(wrong)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Returns the size of all files together.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.sums.size_bytes))
    }

    fn check(&self) -> Result<(), String> {
        let mut last: Option<&str> = None;
        for FileEntry { path, .. } in &self.files {
            if let Some(problem) = path_problem(path) {
                return Err(format!("its `{MANIFEST}` names the file `{path}`, which {problem}"));
            }
            if path == MANIFEST || last.is_some_and(|last| last >= &**path) {
                return Err(format!("its `{MANIFEST}` names the file `{path}` twice or out of order"));
            }
            last = Some(path);
        }
        let of = |path: &str| self.files.binary_search_by(|file| (*file.path).cmp(path)).is_ok();
        // A file in the place of a folder: `a` beside `a/b`.
        for FileEntry { path, .. } in &self.files {
            if let Some(above) = path.match_indices('/').map(|(end, _)| &path[..end]).find(|above| of(above)) {
                return Err(format!("its `{MANIFEST}` names the file `{above}` and another one below it"));
            }
        }
        for (what, path) in [("pipeline", &*self.pipeline), ("lock file", LOCK)] {
            if !of(path) {
                return Err(format!("its {what} should be `{path}`, which its `{MANIFEST}` does not name"));
            }
        }
        if self.size_bytes().is_none() {
            return Err(format!("its `{MANIFEST}` names files of more bytes than there can be"));
        }
        Ok(())
    }
}

/// Returns why a path may not be that of a file in a bundle.
pub(super) fn path_problem(path: &str) -> Option<&'static str> {
    if path.starts_with('/') {
        Some("lies outside of the bundle")
    } else if path.split('/').any(|part| part == "..") {
        Some("leads out of the bundle")
    } else if path.split('/').any(|part| matches!(part, "" | ".")) || path.contains(['\\', '\0']) {
        Some("is not a plain path")
    } else {
        None
    }
}
