//! Compares a result that was made again with the recorded one, file by file.

use std::path::PathBuf;

use spdflow_cache::{Cache, Metric, Output, Record};

use crate::artifact::{MANIFEST, Manifest};
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
    let exhibit = reproducer.exhibits.iter().find(|exhibit| exhibit.index == index);
    let Some(recorded) = exhibit.and_then(|exhibit| exhibit.recorded.as_ref()) else { return Compared::default() };
    let audited = reproducer.subject.workspace.cache;
    let mut compared = Compared::default();
    let mut depart = |file: &str, message: String, step| {
        compared.departures.push(Departure { file: file.to_owned(), message, step });
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
            match manifests(instance, &left, &right) {
                None => compared.files.push((path.clone(), Reproduction::Within)),
                Some(message) => depart(path, message, None),
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
            Ok(None) => compared.files.push((path.clone(), Reproduction::Within)),
            Ok(Some(difference)) if difference.is_within => compared.files.push((path.clone(), Reproduction::Within)),
            Ok(Some(difference)) => depart(path, format!("`{path}`, {difference}"), difference.step),
            Err(unreadable) => depart(path, format!("`{path}`, {unreadable}"), None),
        }
    }
    // That the manifest names other digests only says what the files say themselves.
    if compared.departures.len() > 1 {
        compared.departures.retain(|departure| departure.file != MANIFEST);
    }
    compared
}

/// Compares what two artifacts say of themselves, but for the digests and sizes of their files, which are compared.
fn manifests(instance: &Instance, recorded: &PathBuf, made: &PathBuf) -> Option<String> {
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path).map_err(|error| format!("`{MANIFEST}` cannot be read: {error}"))?;
        serde_json::from_slice::<Manifest>(&bytes).map_err(|error| format!("`{MANIFEST}` cannot be read: {error}"))
    };
    let (before, after) = match (read(recorded), read(made)) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(reason), _) | (_, Err(reason)) => return Some(reason),
    };
    let says = instance.tolerances.iter().any(|tolerance| tolerance.files == MANIFEST);
    // Unless it is said of itself, numbers may depart as far as those of any file may.
    let tolerances = instance.tolerances.iter().map(|tolerance| tolerance.allowed);
    let widest = if says { Some(instance.allowed(MANIFEST)) } else { tolerances.reduce(wider) };
    let tolerance = match widest {
        Some(Allowed::Anything) => return None,
        Some(Allowed::Within(tolerance)) => tolerance,
        None => Tolerance::EXACT,
    };
    let near = |(left, right): (&Metric, &Metric)| left.name == right.name && tolerance.admits(left.value, right.value);
    if before.metrics.len() != after.metrics.len() {
        return Some(format!("it has {} metrics, now {}", before.metrics.len(), after.metrics.len()));
    }
    let pairs = || before.metrics.iter().zip(&after.metrics);
    pairs()
        .find(|pair| !near(*pair))
        .map(|(left, right)| format!("metric `{}` {}, now `{}` {}", left.name, left.value, right.name, right.value))
}

fn wider(left: Allowed, right: Allowed) -> Allowed {
    match (left, right) {
        (Allowed::Within(left), Allowed::Within(right)) => Allowed::Within(Tolerance {
            absolute: left.absolute.max(right.absolute),
            relative: left.relative.max(right.relative),
        }),
        _ => Allowed::Anything,
    }
}
