//! Level 1, integrity: reads every byte that the results rest on, and compares it with what was recorded.
//!
//! Read are the blobs of outputs and logs and the files that lie in place below the output folder; the records were read
//! for the exhibits. Several threads share the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;
use spdflow_cache::{Digest, FileState, inspect_file};

use crate::audit::exhibit::Exhibit;
use crate::audit::finding::{Fault, Finding};
use crate::audit::{LEAST_EACH, Subject, on_threads, take};

/// How much was read.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Reading {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// A file to be read.
struct File<'a> {
    path: PathBuf,
    digest: Digest,
    size_bytes: u64,
    /// When it was made at the latest.
    made: Option<i64>,
    /// Whose it is, and as which output; a blob may be many.
    owners: Vec<(&'a str, Option<&'a str>)>,
    is_blob: bool,
}

/// Fewer bytes than this are not worth another thread.
const LEAST_BYTES: u64 = 4 << 20;

/// Reads everything.
pub(super) fn check(subject: &Subject<'_>, exhibits: &[Exhibit], findings: &mut Vec<Finding>) -> Reading {
    let begin = Instant::now();
    let (mut files, left_out): (Vec<_>, Vec<_>) =
        blobs(subject, exhibits).into_iter().partition(|file| !subject.absent.contains(&file.digest));
    findings.extend(left_out.iter().flat_map(|file| {
        file.owners.iter().map(|(instance, output)| {
            let name = output.map_or("its log".to_owned(), |output| format!("`{output}`"));
            let finding = Finding::new(Fault::LeftOut, format!("{name} is not here, only its digest")).of(instance);
            output.map_or(finding.clone(), |output| finding.in_file(output))
        })
    }));
    files.extend(all_in_place(subject, exhibits, findings));
    // The largest first, so that none of the threads is left with it at the end.
    files.sort_by_key(|file| std::cmp::Reverse(file.size_bytes));
    let (next, size_bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let found = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some((position, file)) = take(&files, &next) {
            let (state, read) = inspect_file(&file.path, &file.digest, file.size_bytes, file.made);
            size_bytes.fetch_add(read, Ordering::Relaxed);
            if state != FileState::Intact {
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(position, state);
            }
        }
    };
    let all_bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
    let parts = (all_bytes / LEAST_BYTES).max(files.len() as u64 / LEAST_EACH as u64);
    on_threads(subject.threads, usize::try_from(parts).unwrap_or(usize::MAX), &work);
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut wrong = Vec::new();
    for (position, state) in found {
        let file = &files[position];
        wrong.extend(told(file, &refined(subject, file, state)));
    }
    wrong.sort_by_key(|finding| {
        exhibits.iter().position(|exhibit| finding.instance.as_ref() == Some(&exhibit.instance))
    });
    findings.extend(wrong);
    Reading {
        files: files.len() as u64 + exhibits.iter().filter(|exhibit| exhibit.recorded.is_some()).count() as u64,
        size_bytes: size_bytes.into_inner(),
        seconds: begin.elapsed().as_secs_f64(),
    }
}

/// Returns the blobs of all records, each once.
fn blobs<'a>(subject: &Subject<'_>, exhibits: &'a [Exhibit]) -> Vec<File<'a>> {
    let cache = subject.workspace.cache;
    let mut positions = BTreeMap::new();
    let mut files: Vec<File<'_>> = Vec::new();
    for exhibit in exhibits {
        let Some(recorded) = &exhibit.recorded else { continue };
        let outputs = recorded.record.artifact.outputs.iter();
        // How large a log is, no record says; that of its own bytes is as good as any.
        let log = recorded.record.log.map(|digest| {
            let size = cache.blob_stamp(&digest).map_or(0, |stamp| stamp.size_bytes);
            (None, digest, size)
        });
        let outputs = outputs.map(|output| (Some(output.path.as_str()), output.digest, output.size_bytes));
        for (output, digest, size_bytes) in outputs.chain(log) {
            let owner = (exhibit.instance.as_str(), output);
            let position = *positions.entry(digest).or_insert(files.len());
            match files.get_mut(position) {
                Some(file) => {
                    file.owners.push(owner);
                    // It was there before the first of the records.
                    file.made = file.made.min(Some(recorded.stamp.modified));
                }
                None => files.push(File {
                    path: cache.blob_path(&digest),
                    digest,
                    size_bytes,
                    made: Some(recorded.stamp.modified),
                    owners: vec![owner],
                    is_blob: true,
                }),
            }
        }
    }
    files
}

/// Returns the files that lie in place, of all instances; several threads look into the folders.
fn all_in_place<'a>(subject: &Subject<'_>, exhibits: &'a [Exhibit], findings: &mut Vec<Finding>) -> Vec<File<'a>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some((position, exhibit)) = take(exhibits, &next) {
            let (mut files, mut findings) = (Vec::new(), Vec::new());
            in_place(subject, exhibit, &mut files, &mut findings);
            found.lock().unwrap_or_else(PoisonError::into_inner).insert(position, (files, findings));
        }
    };
    on_threads(subject.threads, exhibits.len() / LEAST_EACH, &work);
    let mut all = Vec::new();
    for (files, more) in found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
        all.extend(files);
        findings.extend(more);
    }
    all
}

/// Adds the files that lie in the instance's place, if its result does.
fn in_place<'a>(subject: &Subject<'_>, exhibit: &'a Exhibit, files: &mut Vec<File<'a>>, findings: &mut Vec<Finding>) {
    let Some(recorded) = &exhibit.recorded else { return };
    let instance = &subject.pipeline.instances[exhibit.index];
    let folder = subject.workspace.folder(instance);
    if !folder.exists() {
        return;
    }
    let memo = subject.workspace.memo(instance);
    if memo.as_ref().is_some_and(|memo| memo.fingerprint != recorded.record.fingerprint) {
        let message = "what lies in its place is the result of another key";
        findings.push(Finding::new(Fault::Note, message).of(&exhibit.instance).at(&folder));
        return;
    }
    let outputs = &recorded.record.artifact.outputs;
    for output in outputs {
        let seen = memo.as_ref().and_then(|memo| memo.files.iter().find(|file| file.path == output.path));
        files.push(File {
            path: folder.join(&output.path),
            digest: output.digest,
            size_bytes: output.size_bytes,
            // Nobody knows when it was put there if no memo does; then it counts as written to.
            made: Some(seen.map_or(0, |file| file.stamp.modified)),
            owners: vec![(&exhibit.instance, Some(&output.path))],
            is_blob: false,
        });
    }
    for path in strays(&folder, outputs.iter().map(|output| output.path.as_str()).collect()) {
        let message = format!("`{path}` lies among its files, but is none of them");
        findings.push(Finding::new(Fault::Edited, message).of(&exhibit.instance).at(&folder.join(&path)));
    }
}

/// Returns the files below `folder` that do not belong there.
fn strays(folder: &Path, expected: BTreeSet<&str>) -> Vec<String> {
    let mut strays = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.join(&below)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if !expected.contains(path.as_str()) {
                strays.push(path);
            }
        }
    }
    strays.sort();
    strays
}

/// A result in place that is too short is one that somebody wrote anew, unless it begins as the intact one does.
fn refined(subject: &Subject<'_>, file: &File<'_>, state: FileState) -> FileState {
    let FileState::Truncated { .. } = state else { return state };
    if file.is_blob {
        return state;
    }
    let read = |path: &Path| fs::read(path).unwrap_or_default();
    let (found, intact) = (read(&file.path), read(&subject.workspace.cache.blob_path(&file.digest)));
    if intact.starts_with(&found) || Digest::of(&intact) != file.digest { state } else { FileState::Edited }
}

/// Returns what is wrong with a file, for each of its owners.
fn told<'a>(file: &'a File<'_>, state: &'a FileState) -> impl Iterator<Item = Finding> + 'a {
    let place = if file.is_blob { "in the cache" } else { "in its place" };
    file.owners.iter().map(move |(instance, output)| {
        let name = output.map_or("its log".to_owned(), |output| format!("`{output}`"));
        let (fault, message) = match state {
            FileState::Intact => unreachable!("only what is not intact is told"),
            FileState::Missing => (Fault::Missing, format!("{name} is missing {place}")),
            FileState::Truncated { size_bytes } => {
                (Fault::Truncated, format!("{name} is cut short {place}: {size_bytes} of {} bytes", file.size_bytes))
            }
            FileState::Rotten => {
                let message = format!("{name} has other bytes {place}, though nobody wrote to it since it was made");
                (Fault::Rotten, message)
            }
            FileState::Edited => (Fault::Edited, format!("{name} was changed {place} after it was made")),
            FileState::Unreadable { reason } => (Fault::Unreadable, format!("{name} cannot be read {place}: {reason}")),
        };
        let finding = Finding::new(fault, message).of(instance).at(&file.path);
        let finding = match output {
            Some(output) => finding.in_file(*output),
            None => finding,
        };
        finding.hint("`--repair` takes it from where it is still intact, or out of the way so that it is made again")
    })
}
