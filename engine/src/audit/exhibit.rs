//! Level 0, completeness: finds the record of every instance, and says what is missing.
//!
//! An instance's key follows from its parameters and the results of its producers, as in a plan. If nothing is recorded
//! under it, the result that lies in its place, or that its lock file names, is what there is to be audited; the pipeline
//! has changed since. Nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use spdflow_cache::{Cache, CacheError, Digest, Record, RecordState, Stamp};

use crate::audit::Subject;
use crate::audit::finding::{Fault, Finding};
use crate::fingerprint::Preimage;
use crate::machine::now_text;
use crate::pipeline::Instance;
use crate::plan::{input_digests, key};
use crate::why::differences;

/// What the cache shows of one instance.
#[derive(Debug)]
pub struct Exhibit {
    /// The instance's index in the pipeline.
    pub index: usize,
    /// Its name.
    pub instance: String,
    /// The key that it has today, if the results of its producers are known.
    pub fingerprint: Option<Digest>,
    /// The record of its result.
    pub recorded: Option<Recorded>,
    /// How its key departs from the record's, if it does.
    pub drift: Option<String>,
}

/// A record that can be read.
#[derive(Debug)]
pub struct Recorded {
    /// It.
    pub record: Box<Record>,
    /// The digest of its file.
    pub digest: Digest,
    /// The stamp of its file.
    pub stamp: Stamp,
}

impl Exhibit {
    /// Returns the digest of its artifact.
    #[must_use]
    pub fn artifact(&self) -> Option<Digest> {
        self.recorded.as_ref().map(|recorded| recorded.record.artifact.digest)
    }

    /// Returns the key of the result that there is, or else would be.
    #[must_use]
    pub fn key(&self) -> Option<Digest> {
        self.recorded.as_ref().map(|recorded| recorded.record.fingerprint).or(self.fingerprint)
    }

    /// Returns whether the record is that of the key which the instance has today.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.recorded.is_some() && self.drift.is_none()
    }
}

/// Finds the exhibits of the instances that are members, in the order of the pipeline.
pub(super) fn collect(
    subject: &Subject<'_>,
    members: &[bool],
    findings: &mut Vec<Finding>,
) -> Result<Vec<Exhibit>, CacheError> {
    let Subject { pipeline, workspace, .. } = subject;
    let cache = workspace.cache;
    let mut known = read_ahead(subject, members);
    let mut artifacts: Vec<Option<Digest>> = vec![None; pipeline.instances.len()];
    let mut exhibits = Vec::new();
    for (index, instance) in pipeline.instances.iter().enumerate().filter(|(index, _)| members[*index]) {
        let id = instance.id.to_string();
        let mut exhibit = Exhibit { index, instance: id.clone(), fingerprint: None, recorded: None, drift: None };
        let inputs = input_digests(instance, |producer| artifacts[producer]);
        let are_known = instance.parents().all(|parent| artifacts[parent].is_some());
        let mut damaged = false;
        if are_known {
            let fingerprint = key(instance, &inputs, &subject.target).fingerprint();
            exhibit.fingerprint = Some(fingerprint);
            match known_or_read(cache, &fingerprint, &mut known)? {
                RecordState::Intact { record, digest, stamp } => {
                    exhibit.recorded = Some(Recorded { record, digest, stamp });
                }
                RecordState::Missing => {}
                RecordState::Damaged { reason, is_truncated, stamp } => {
                    damaged = true;
                    findings.push(damaged_record(cache, &id, &fingerprint, &reason, is_truncated, &stamp));
                }
            }
        }
        if exhibit.recorded.is_none() && !damaged {
            find_earlier(subject, instance, &inputs, are_known, &mut exhibit, &mut known, findings)?;
            match &exhibit.drift {
                Some(drift) => findings.push(
                    Finding::new(Fault::Drift, format!("the pipeline has changed since this result: {drift}"))
                        .of(&id)
                        .hint("`spdflow run` brings it up to date; `spdflow audit RUN` audits what was run then"),
                ),
                None if are_known => findings.push(
                    Finding::new(Fault::NoRecord, "nothing in the cache says how its result came about")
                        .of(&id)
                        .hint("`spdflow run` makes it"),
                ),
                None => findings.push(
                    Finding::new(
                        Fault::NoRecord,
                        "the results that it is made from are not recorded, so neither is its key",
                    )
                    .of(&id),
                ),
            }
        }
        if let Some(recorded) = &exhibit.recorded {
            check_times(&recorded.record, &id, findings);
        }
        artifacts[index] = exhibit.artifact();
        exhibits.push(exhibit);
    }
    check_inputs(&exhibits, findings);
    Ok(exhibits)
}

/// Reads the records of the results that lie in place by several threads: most likely they are those that are asked for.
fn read_ahead(subject: &Subject<'_>, members: &[bool]) -> BTreeMap<Digest, RecordState> {
    let instances = subject.pipeline.instances.iter().enumerate().filter(|(index, _)| members[*index]);
    let places: Vec<Digest> = instances.filter_map(|(_, instance)| subject.workspace.in_place(instance)).collect();
    let (next, read) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some((_, fingerprint)) = super::take(&places, &next) {
            if let Ok(state) = subject.workspace.cache.inspect_record(fingerprint) {
                read.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(*fingerprint, state);
            }
        }
    };
    super::on_threads(subject.threads, places.len() / super::LEAST_EACH, &work);
    read.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn known_or_read(
    cache: &Cache,
    fingerprint: &Digest,
    known: &mut BTreeMap<Digest, RecordState>,
) -> Result<RecordState, CacheError> {
    known.remove(fingerprint).map_or_else(|| cache.inspect_record(fingerprint), Ok)
}

/// Looks for the result that the instance had before the pipeline changed: the one in its place, or in the lock file.
fn find_earlier(
    subject: &Subject<'_>,
    instance: &Instance,
    inputs: &BTreeMap<String, Vec<Digest>>,
    are_known: bool,
    exhibit: &mut Exhibit,
    known: &mut BTreeMap<Digest, RecordState>,
    findings: &mut Vec<Finding>,
) -> Result<(), CacheError> {
    let locked = subject.lock.and_then(|lock| Some(lock.stages.get(&exhibit.instance)?.fingerprint));
    for fingerprint in [subject.workspace.in_place(instance), locked].into_iter().flatten() {
        let cache = subject.workspace.cache;
        let (record, digest, stamp) = match known_or_read(cache, &fingerprint, known)? {
            RecordState::Intact { record, digest, stamp } => (record, digest, stamp),
            RecordState::Missing => continue,
            RecordState::Damaged { reason, is_truncated, stamp } => {
                let id = &exhibit.instance;
                findings.push(damaged_record(cache, id, &fingerprint, &reason, is_truncated, &stamp));
                continue;
            }
        };
        let Ok(before) = serde_json::from_value::<Preimage>(record.preimage.clone()) else { continue };
        let after = key(instance, inputs, &subject.target).preimage();
        let mut changes = differences(&before, &after, &|_| Vec::new());
        if !are_known {
            changes.retain(|change| !change.field.starts_with("inputs."));
        }
        let mut texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
        if !are_known {
            texts.push("the results of its producers are not recorded".to_owned());
        }
        exhibit.drift = Some(texts.join("; "));
        exhibit.recorded = Some(Recorded { record, digest, stamp });
        return Ok(());
    }
    Ok(())
}

fn damaged_record(
    cache: &Cache,
    instance: &str,
    fingerprint: &Digest,
    reason: &str,
    is_truncated: bool,
    stamp: &Stamp,
) -> Finding {
    // The blobs of the record would say when it was written, but nobody knows which these are. The run's own files do.
    let logged = cache.run_log().ok().into_iter().flatten().filter_map(|line| line.entry.ok());
    let times = logged.filter_map(|entry| {
        let folder = cache.root().join("runs").join(&entry.run);
        let evidence = std::fs::read_to_string(folder.join(spdflow_cache::EVIDENCE)).ok()?;
        let file = std::fs::metadata(folder.join(spdflow_cache::EVIDENCE)).ok()?;
        evidence.contains(&fingerprint.to_string()).then(|| Stamp::of(&file).modified)
    });
    let fault = match times.max() {
        _ if is_truncated => Fault::Truncated,
        Some(logged) if stamp.modified > logged + 2_000_000_000 => Fault::Edited,
        _ => Fault::Rotten,
    };
    Finding::new(fault, format!("its record cannot be trusted: {reason}"))
        .of(instance)
        .at(&cache.record_path(fingerprint))
        .hint("`spdflow audit --repair` takes it out of the way, and from a remote that has it")
}

fn check_times(record: &Record, instance: &str, findings: &mut Vec<Finding>) {
    let times = &record.times;
    // Both are in the same form, whose order is that of time.
    let message = if times.finished < times.started {
        format!("its record says that it ended ({}) before it began ({})", times.finished, times.started)
    } else if times.finished > now_text() {
        format!("its record says that it ended at {}, which has not come yet", times.finished)
    } else if times.seconds.is_nan() || times.seconds < 0.0 {
        format!("its record says that it took {} seconds", times.seconds)
    } else {
        return;
    };
    findings.push(Finding::new(Fault::ImpossibleTime, message).of(instance));
}

/// Every recorded input must be the result of some instance.
fn check_inputs(exhibits: &[Exhibit], findings: &mut Vec<Finding>) {
    let made: BTreeSet<Digest> = exhibits.iter().filter_map(Exhibit::artifact).collect();
    for exhibit in exhibits {
        let Some(recorded) = &exhibit.recorded else { continue };
        // A key that follows from the producers' results names them; only an earlier result may name others.
        if exhibit.is_current() {
            continue;
        }
        let Ok(preimage) = serde_json::from_value::<Preimage>(recorded.record.preimage.clone()) else { continue };
        for (slot, digests) in &preimage.inputs {
            for digest in digests.iter().filter(|digest| !made.contains(digest)) {
                let message = format!(
                    "its input `{slot}` was the artifact {}, which no stage of the pipeline has made",
                    digest.short()
                );
                findings.push(Finding::new(Fault::InputUnknown, message).of(&exhibit.instance));
            }
        }
    }
}
