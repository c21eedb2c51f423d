//! Compares a result that was made again with the recorded one, file by file.

use spdflow_cache::{Cache, Output, Record};

use crate::artifact::MANIFEST;
use crate::audit::finding::Reproduction;
use crate::audit::format::Tolerance;
use crate::audit::reproduction::Reproducer;
use crate::pipeline::{Allowed, Instance};

/// What a comparison came to.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// The files that are as they should be.
    pub(super) files: Vec<(String, Reproduction)>,
    /// Those that are not.
    pub(super) departures: Vec<Departure>,
    /// What is worth knowing of those that are.
    pub(super) notes: Vec<String>,
}

/// A file that is not as it should be.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) file: String,
    pub(super) message: String,
    /// The first training step that differs, if the file says.
    pub(super) step: Option<u64>,
}

/// Compares what was made again for the instance `index`.
pub(super) fn compare(reproducer: &Reproducer<'_>, index: usize, made: &Record, cache: &Cache) -> Compared {
    let instance = &reproducer.subject.pipeline.instances[index];
    let Some(recorded) = reproducer.exhibit(index).and_then(|exhibit| exhibit.recorded.as_ref()) else {
        return Compared::default();
    };
    let audited = reproducer.subject.workspace.cache;
    let mut compared = Compared::default();
    let mut departures = Vec::new();
    let mut depart = |file: &str, message: String, step| {
        departures.push(Departure { file: file.to_owned(), message, step });
    };
    let find = |outputs: &[Output], path: &str| outputs.iter().find(|output| output.path == path).cloned();
    let outputs = &recorded.record.artifact.outputs;
    for output in &made.artifact.outputs {
        if find(outputs, &output.path).is_none() {
            depart(&output.path, format!("`{}` was not there", output.path), None);
        }
    }
    for before in outputs {
        let path = &before.path;
        let Some(after) = find(&made.artifact.outputs, path) else {
            depart(path, format!("`{path}` is not made any more"), None);
            continue;
        };
        if before.digest == after.digest {
            compared.files.push((path.clone(), Reproduction::Exact));
            continue;
        }
        let [left, right] = [audited.blob_path(&before.digest), cache.blob_path(&after.digest)];
        if path == MANIFEST {
            // The digests and sizes of files do not count here: the files are compared themselves.
            let format = reproducer.formats.get(MANIFEST);
            match format.compare(&left, &right, manifest_tolerance(instance)) {
                Ok(None) => compared.files.push((path.clone(), Reproduction::Within)),
                Ok(Some(difference)) if difference.is_within => {
                    compared.files.push((path.clone(), Reproduction::Within));
                }
                Ok(Some(difference)) => depart(path, format!("`{path}`, {difference}"), None),
                Err(unreadable) => depart(path, format!("`{path}`, {unreadable}"), None),
            }
            continue;
        }
        let tolerance = match instance.allowed(path) {
            Allowed::Anything => {
                compared.files.push((path.clone(), Reproduction::Within));
                continue;
            }
            Allowed::Within(tolerance) => tolerance,
        };
        match reproducer.formats.get(&before.format).compare(&left, &right, tolerance) {
            // The same pixels in other bytes.
            Ok(None) => {
                compared.notes.push(format!("made again, `{path}` holds the same in other bytes"));
                compared.files.push((path.clone(), Reproduction::Within));
            }
            Ok(Some(difference)) if difference.is_within => compared.files.push((path.clone(), Reproduction::Within)),
            Ok(Some(difference)) => depart(path, format!("`{path}`, {difference}"), difference.step),
            Err(unreadable) => depart(path, format!("`{path}`, {unreadable}"), None),
        }
    }
    // That the manifest names other digests only says what the files say themselves.
    if departures.len() > 1 {
        departures.retain(|departure| departure.file != MANIFEST);
    }
    compared.departures = departures;
    compared
}

/// Returns how far the numbers in an artifact's description of itself may depart: as far as those of any file, unless
/// something is said of it. That a file may be any other says nothing about them.
fn manifest_tolerance(instance: &Instance) -> Tolerance {
    let within = |allowed| match allowed {
        Allowed::Within(tolerance) => Some(tolerance),
        Allowed::Anything => None,
    };
    if let Some(said) = instance.tolerances.iter().find(|tolerance| tolerance.files == MANIFEST) {
        return within(said.allowed).unwrap_or(Tolerance { absolute: f64::MAX, relative: 0.0 });
    }
    let tolerances = instance.tolerances.iter().filter_map(|tolerance| within(tolerance.allowed));
    tolerances.fold(Tolerance::EXACT, |widest, tolerance| Tolerance {
        absolute: widest.absolute.max(tolerance.absolute),
        relative: widest.relative.max(tolerance.relative),
    })
}
