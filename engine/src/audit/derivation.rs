//! Level 2, derivation: every key follows from what its record says, every number from the artifact that holds it.
//!
//! Keys are computed again from the recorded preimages. Records are compared with what the artifacts say of themselves, with
//! the lock file and with the program that audits. Numbers that files show are compared with the recorded metrics.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

use serde_json::Value as Json;
use spdflow_cache::{BuildInfo, Cache, Digest, Metric, Record};

use crate::artifact::{MANIFEST, Manifest};
use crate::audit::exhibit::Exhibit;
use crate::audit::finding::{Fault, Finding};
use crate::audit::format::{Formats, Quote};
use crate::audit::{LEAST_EACH, Subject, on_threads, take};
use crate::fingerprint::check_key;

/// Checks all exhibits.
pub(super) fn check(
    subject: &Subject<'_>,
    exhibits: &[Exhibit],
    formats: &Formats,
    build: &BuildInfo,
    findings: &mut Vec<Finding>,
) {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let by_index: BTreeMap<usize, &Exhibit> = exhibits.iter().map(|exhibit| (exhibit.index, exhibit)).collect();
    let work = || {
        while let Some((position, exhibit)) = take(exhibits, &next) {
            let mut own = Vec::new();
            check_one(subject, exhibit, &by_index, formats, build, &mut own);
            if !own.is_empty() {
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(position, own);
            }
        }
    };
    on_threads(subject.threads, exhibits.len() / LEAST_EACH, &work);
    findings.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().flatten());
    same_results(exhibits, findings);
}

fn check_one(
    subject: &Subject<'_>,
    exhibit: &Exhibit,
    by_index: &BTreeMap<usize, &Exhibit>,
    formats: &Formats,
    build: &BuildInfo,
    findings: &mut Vec<Finding>,
) {
    let Some(recorded) = &exhibit.recorded else { return };
    let (record, id) = (&recorded.record, exhibit.instance.as_str());
    let cache = subject.workspace.cache;
    if let Err(reason) = check_key(record) {
        let message = format!("its record does not follow from what it says it was computed from: {reason}");
        findings.push(Finding::new(Fault::NotItsKey, message).of(id));
    }
    if let Some(message) = manifest_problem(cache, record) {
        findings.push(Finding::new(Fault::NotItsManifest, message).of(id).in_file(MANIFEST));
    }
    let changes = build_changes(&record.build, build);
    if !changes.is_empty() {
        let message = format!("it was made by another program than this: {}", changes.join("; "));
        let hint = "`--level 3` makes it again with this program and says whether that matters";
        findings.push(Finding::new(Fault::OtherBuild, message).of(id).hint(hint));
    }
    if let Some(lock) = subject.lock
        && let Some(drift) = lock.check(id, Some(record.fingerprint), Some(record.artifact.digest))
    {
        findings.push(Finding::new(Fault::OtherThanLocked, drift.to_string()).of(id));
    }
    let parents = subject.pipeline.instances[exhibit.index].parents();
    let inputs: Vec<&Record> =
        parents.filter_map(|parent| Some(&*by_index.get(&parent)?.recorded.as_ref()?.record)).collect();
    for output in record.artifact.outputs.iter().filter(|output| output.path != MANIFEST) {
        let path = cache.blob_path(&output.digest);
        if !cache.has_blob(&output.digest, output.size_bytes) {
            continue;
        }
        match formats.get(&output.format).quotes(Path::new(&path)) {
            Ok(quotes) => {
                for message in misquoted(&quotes, &record.metrics, &inputs) {
                    findings.push(Finding::new(Fault::Misquoted, message).of(id).in_file(&output.path));
                }
            }
            Err(unreadable) => {
                let message =
                    format!("`{}` is not what `{}` files are: {}", output.path, output.format, unreadable.reason);
                findings.push(Finding::new(Fault::Note, message).of(id).in_file(&output.path));
            }
        }
    }
}

/// Returns what the record says otherwise than the artifact's own `artifact.json`.
fn manifest_problem(cache: &Cache, record: &Record) -> Option<String> {
    let Some(output) = record.artifact.outputs.iter().find(|output| output.path == MANIFEST) else {
        return Some(format!("its record names no `{MANIFEST}`, which every artifact has"));
    };
    let bytes = std::fs::read(cache.blob_path(&output.digest)).ok()?;
    if Digest::of(&bytes) != output.digest {
        // Level 1 tells that; what it says does not count.
        return None;
    }
    let manifest: Manifest = match serde_json::from_slice(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return Some(format!("its `{MANIFEST}` cannot be read: {error}")),
    };
    if manifest.kind != record.kind {
        return Some(format!("its record says that `{}` made it, the artifact says `{}`", record.kind, manifest.kind));
    }
    let shown = |metric: Option<&Metric>| metric.map_or("nothing".to_owned(), |metric| metric.value.to_string());
    let count = manifest.metrics.len().max(record.metrics.len());
    let differing =
        (0..count).map(|index| (record.metrics.get(index), manifest.metrics.get(index))).find(|(left, right)| {
            let same = |left: &Metric, right: &Metric| {
                left.name == right.name && (left.value == right.value || left.value.is_nan() && right.value.is_nan())
            };
            !left.zip(*right).is_some_and(|(left, right)| same(left, right))
        });
    if let Some((recorded, own)) = differing {
        let name = recorded.or(own).map_or("", |metric| metric.name.as_str());
        let (recorded, own) = (shown(recorded), shown(own));
        return Some(format!("its record says that metric `{name}` is {recorded}, the artifact says {own}"));
    }
    let others: Vec<_> = record.artifact.outputs.iter().filter(|output| output.path != MANIFEST).collect();
    let same = others.len() == manifest.files.len() && others.iter().all(|output| manifest.files.contains(output));
    if same {
        return None;
    }
    let differing = others.iter().find(|output| !manifest.files.contains(output)).map(|output| output.path.as_str());
    let differing = differing.or_else(|| {
        let files = manifest.files.iter();
        files.map(|file| file.path.as_str()).find(|path| !others.iter().any(|output| output.path == *path))
    });
    Some(format!(
        "its record and the artifact name different files: `{}` (was a file put in another's place?)",
        differing.unwrap_or_default()
    ))
}

/// Returns how the program that made a record differs from this one.
fn build_changes(before: &BuildInfo, now: &BuildInfo) -> Vec<String> {
    let mut changes = Vec::new();
    let mut compare = |what: &str, before: &str, now: &str| {
        if before != now {
            changes.push(format!("{what} {before} → {now}"));
        }
    };
    compare("version", &before.version, &now.version);
    let short = |digest: &Digest| digest.short();
    match (&before.sources, &now.sources) {
        // The commit says nothing more of the same sources, and of others it is how people know them.
        (Some(left), Some(right)) if left == right => {}
        (left, right) => {
            let cut = |commit: &str| {
                commit.chars().take(12).chain(commit.strip_suffix("-dirty").map(|_| '+')).collect::<String>()
            };
            compare("commit", &cut(&before.git_commit), &cut(&now.git_commit));
            if let (Some(left), Some(right)) = (left, right) {
                compare("sources", &short(left), &short(right));
            }
        }
    }
    compare("Cargo.lock", &short(&before.cargo_lock), &short(&now.cargo_lock));
    compare("compiler", &before.rustc, &now.rustc);
    compare("profile", &before.profile, &now.profile);
    changes
}

/// Returns, for each number that a file shows under a metric's name but with no recorded value of it, what is wrong.
///
/// A file may show a metric several times, of several inputs or at several steps; one that agrees suffices.
fn misquoted(quotes: &[Quote], own: &[Metric], inputs: &[&Record]) -> Vec<String> {
    let mut by_name: BTreeMap<&str, Vec<&Quote>> = BTreeMap::new();
    for quote in quotes {
        by_name.entry(&quote.name).or_default().push(quote);
    }
    let mut wrong = Vec::new();
    for (name, quotes) in by_name {
        let of = |metrics: &[Metric]| -> Vec<f64> {
            metrics.iter().filter(|metric| metric.name == name).map(|metric| metric.value).collect()
        };
        let mut recorded = of(own);
        if recorded.is_empty() {
            recorded = inputs.iter().flat_map(|record| of(&record.metrics)).collect();
        }
        let agrees = |quote: &&Quote| {
            recorded.iter().any(|value| {
                // The digits shown are a rounding; the last bit of the recorded number may be either side of it. Files may
                // hold single precision, of which the shortest digits are shown.
                let slack = quote.precision + 4.0 * f64::EPSILON * value.abs();
                let single = quote.value as f32;
                let is_single = f64::from(single) == quote.value || single.to_string() == quote.value.to_string();
                let is_same_single = is_single && single.is_normal() && *value as f32 == single;
                is_same_single || value.is_nan() && quote.value.is_nan() || (value - quote.value).abs() <= slack
            })
        };
        if recorded.is_empty() || quotes.iter().any(agrees) {
            continue;
        }
        let quote = quotes[0];
        let recorded: Vec<String> = recorded.iter().map(ToString::to_string).collect();
        wrong.push(format!(
            "it shows `{name}` as {} ({}), recorded is {}",
            quote.value,
            quote.place,
            recorded.join(" or ")
        ));
    }
    wrong
}

/// Points out instances that differ in their seed and made the same bytes all the same.
fn same_results(exhibits: &[Exhibit], findings: &mut Vec<Finding>) {
    let mut by_artifact: BTreeMap<Digest, Vec<(&Exhibit, &Json)>> = BTreeMap::new();
    for exhibit in exhibits {
        let Some(recorded) = &exhibit.recorded else { continue };
        let preimage = &recorded.record.preimage;
        if preimage["params"]["seed"].is_number() {
            by_artifact.entry(recorded.record.artifact.digest).or_default().push((exhibit, preimage));
        }
    }
    for exhibits in by_artifact.into_values() {
        let (first, others) = exhibits.split_first().expect("an entry has an exhibit");
        let is_twin = |(_, preimage): &&(&Exhibit, &Json)| {
            preimage["kind"] == first.1["kind"]
                && preimage["inputs"] == first.1["inputs"]
                && preimage["params"]["seed"] != first.1["params"]["seed"]
        };
        if let Some((twin, _)) = others.iter().find(is_twin) {
            let message = format!("it has another seed than `{}` and made the same bytes", first.0.instance);
            findings.push(Finding::new(Fault::Note, message).of(&twin.instance));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> BuildInfo {
        BuildInfo {
            version: "0.1.0".to_owned(),
            git_commit: "a".repeat(40),
            cargo_lock: Digest::of(b"lock"),
            sources: Some(Digest::of(b"sources")),
            rustc: "rustc 1.95.0".to_owned(),
            profile: "release".to_owned(),
        }
    }

    #[test]
    fn builds_differ_by_their_sources_and_not_by_a_commit_that_changed_none() {
        assert!(build_changes(&build(), &build()).is_empty());
        let docs = BuildInfo { git_commit: "b".repeat(40), ..build() };
        assert!(build_changes(&build(), &docs).is_empty());
        let other = BuildInfo { sources: Some(Digest::of(b"other")), ..docs };
        let sources = [Digest::of(b"sources").short(), Digest::of(b"other").short()];
        assert_eq!(
            build_changes(&build(), &other),
            ["commit aaaaaaaaaaaa → bbbbbbbbbbbb".to_owned(), format!("sources {} → {}", sources[0], sources[1])]
        );
        let old = BuildInfo { sources: None, git_commit: format!("{}-dirty", "a".repeat(40)), ..build() };
        assert_eq!(build_changes(&old, &build()), ["commit aaaaaaaaaaaa+ → aaaaaaaaaaaa"]);
    }

    #[test]
    fn a_number_shown_must_be_a_recorded_one_to_the_digits_shown() {
        let metric = |name: &str, value| Metric { name: name.to_owned(), value };
        let quote =
            |name: &str, value, precision| Quote { name: name.to_owned(), value, precision, place: "row 3".to_owned() };
        let own = [metric("loss", 0.12345)];
        let said = |quotes: &[Quote]| misquoted(quotes, &own, &[]);
        assert!(said(&[quote("loss", 0.123, 0.0005), quote("other", 7.0, 0.0)]).is_empty());
        assert!(said(&[quote("loss", 9.0, 0.0), quote("loss", 0.12345, 0.0)]).is_empty());
        assert_eq!(said(&[quote("loss", 0.124, 0.0005)]), ["it shows `loss` as 0.124 (row 3), recorded is 0.12345"]);
    }
}
