//! What of a cache is nearest to a file whose bytes it does not have.
//!
//! A picture that another program has saved again has the same pixels and other bytes; so has a table. What knows the format
//! of the file compares it with the files of results of that format.

use std::collections::BTreeSet;
use std::path::Path;

use spdflow_cache::{Cache, Output, Record};

use super::Trace;
use crate::audit::format::{Formats, Tolerance};

/// How many files, and bytes of them, are compared: a look that takes seconds, not hours.
const MOST_FILES: usize = 2000;
const MOST_BYTES: u64 = 1 << 30;

/// A file of a result.
#[derive(Debug, Clone, Copy)]
pub struct Alike<'t> {
    /// The result.
    pub record: &'t Record,
    /// The file.
    pub output: &'t Output,
}

/// What is nearest to a file.
#[derive(Debug, Default)]
pub struct Nearest<'t> {
    /// Files that hold the same, by their format.
    pub same: Vec<Alike<'t>>,
    /// Files of the same name, if none holds the same; the last made first.
    pub named: Vec<Alike<'t>>,
    /// Whether there were more files of its format than were compared.
    pub is_partial: bool,
}

impl Trace {
    /// Returns what is nearest to a file of which no bytes are known.
    #[must_use]
    pub fn nearest(&self, cache: &Cache, file: &Path, formats: &Formats) -> Nearest<'_> {
        let mut nearest = Nearest::default();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(ending) = file.extension().map(|ending| ending.to_string_lossy().to_lowercase()) else {
            nearest.named = self.named(&name);
            return nearest;
        };
        let format = formats.get(&ending);
        let (mut seen, mut bytes) = (BTreeSet::new(), 0);
        for alike in self.outputs().filter(|alike| ends_with(&alike.output.path, &ending)) {
            let output = alike.output;
            if !seen.insert(output.digest) || !cache.has_blob(&output.digest, output.size_bytes) {
                continue;
            }
            bytes += output.size_bytes;
            if seen.len() > MOST_FILES || bytes > MOST_BYTES {
                nearest.is_partial = true;
                break;
            }
            // A file that cannot be read as its format is like nothing.
            if let Ok(None) = format.compare(&cache.blob_path(&output.digest), file, Tolerance::EXACT) {
                nearest.same.push(alike);
            }
        }
        if nearest.same.is_empty() {
            nearest.named = self.named(&name);
        }
        nearest
    }

    fn outputs(&self) -> impl DoubleEndedIterator<Item = Alike<'_>> {
        self.records
            .iter()
            .flat_map(|record| record.artifact.outputs.iter().map(move |output| Alike { record, output }))
    }

    fn named(&self, name: &str) -> Vec<Alike<'_>> {
        let named = |alike: &Alike<'_>| alike.output.path.rsplit('/').next() == Some(name);
        self.outputs().rev().filter(named).take(3).collect()
    }
}

fn ends_with(path: &str, ending: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}
