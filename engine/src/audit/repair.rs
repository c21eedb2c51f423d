//! `--repair`: what is damaged is taken from where it is still intact, or out of the way so that the next run makes it again.
//!
//! The only part of an audit that changes the audited cache. Damaged files go to quarantine, as they do when a run meets
//! them; nothing is deleted.

use spdflow_cache::remote::{Pulled, Remote};
use spdflow_cache::{BlobState, FileState, Lookup, RecordState, inspect_file};

use crate::artifact::MANIFEST;
use crate::audit::Subject;
use crate::audit::exhibit::{self, Exhibit};
use crate::error::RunError;
use crate::fingerprint::check_key;
use crate::outputs::Placed;
use crate::workspace::known_of;

/// Mends what results rest on, and says what was done.
pub(super) fn repair(
    subject: &Subject<'_>,
    members: &[bool],
    remote: Option<&Remote>,
) -> Result<Vec<String>, RunError> {
    let mut done = Vec::new();
    let mut exhibits = exhibit::collect(subject, members, &mut Vec::new())?;
    // What lies behind a record that is found again has a key only then.
    loop {
        let before = done.len();
        for exhibit in &exhibits {
            repair_record(subject, exhibit, remote, &mut done)?;
        }
        if done.len() == before {
            break;
        }
        exhibits = exhibit::collect(subject, members, &mut Vec::new())?;
    }
    for exhibit in &exhibits {
        repair_blobs(subject, exhibit, remote, &mut done)?;
        repair_place(subject, exhibit, &mut done)?;
    }
    subject.workspace.write_memos()?;
    Ok(done)
}

fn repair_record(
    subject: &Subject<'_>,
    exhibit: &Exhibit,
    remote: Option<&Remote>,
    done: &mut Vec<String>,
) -> Result<(), RunError> {
    let (cache, id) = (subject.workspace.cache, &exhibit.instance);
    let Some(fingerprint) = exhibit.fingerprint else { return Ok(()) };
    let is_sound = match cache.inspect_record(&fingerprint)? {
        RecordState::Missing => {
            if take(subject, &fingerprint, remote)? {
                done.push(format!("`{id}`: its record was taken from the remote"));
            }
            return Ok(());
        }
        RecordState::Intact { record, .. } => check_key(&record).is_ok(),
        RecordState::Damaged { .. } => false,
    };
    if is_sound {
        return Ok(());
    }
    // One with a good seal that does not follow from its preimage is no better than one without.
    let quarantined = match cache.read_record(&fingerprint)? {
        Lookup::Corrupt { quarantined, .. } => quarantined,
        _ => cache.quarantine_record(&fingerprint)?,
    };
    done.push(format!("`{id}`: its record was moved to `{}`", quarantined.display()));
    if take(subject, &fingerprint, remote)? {
        done.push(format!("`{id}`: its record was taken from the remote"));
    } else {
        done.push(format!("`{id}`: `spdflow run` will make it again"));
    }
    Ok(())
}

fn repair_blobs(
    subject: &Subject<'_>,
    exhibit: &Exhibit,
    remote: Option<&Remote>,
    done: &mut Vec<String>,
) -> Result<(), RunError> {
    let (cache, id) = (subject.workspace.cache, &exhibit.instance);
    let Some(fingerprint) = exhibit.key() else { return Ok(()) };
    let RecordState::Intact { record, .. } = cache.inspect_record(&fingerprint)? else { return Ok(()) };
    let folder = subject.workspace.folder(&subject.pipeline.instances[exhibit.index]);
    let mut missing = Vec::new();
    let log = record.log.map(|digest| ("its log", digest));
    let outputs = record.artifact.outputs.iter().map(|output| (output.path.as_str(), output.digest));
    for (name, digest) in outputs.chain(log) {
        match cache.check_blob(&digest)? {
            BlobState::Intact => continue,
            BlobState::Missing => {}
            BlobState::Damaged { quarantined } => {
                done.push(format!("`{id}`: `{name}` was moved to `{}`", quarantined.display()));
            }
        }
        let path = folder.join(name);
        let size_bytes = path.metadata().map_or(0, |metadata| metadata.len());
        if inspect_file(&path, &digest, size_bytes, None).0 == FileState::Intact {
            cache.store_file(&path)?;
            done.push(format!("`{id}`: `{name}` was taken from `{}`", folder.display()));
        } else {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if take(subject, &fingerprint, remote)? {
        done.push(format!("`{id}`: `{}` was taken from the remote", missing.join("`, `")));
    } else if missing != ["its log"] {
        done.push(format!("`{id}`: `{}` will be made again by `spdflow run`", missing.join("`, `")));
    } else {
        done.push(format!("`{id}`: its log is lost"));
    }
    Ok(())
}

/// Puts a result that was edited or damaged in its place back.
fn repair_place(subject: &Subject<'_>, exhibit: &Exhibit, done: &mut Vec<String>) -> Result<(), RunError> {
    let cache = subject.workspace.cache;
    let instance = &subject.pipeline.instances[exhibit.index];
    let Some(fingerprint) = exhibit.key() else { return Ok(()) };
    let RecordState::Intact { record, .. } = cache.inspect_record(&fingerprint)? else { return Ok(()) };
    let folder = subject.workspace.folder(instance);
    let outputs = &record.artifact.outputs;
    if !folder.join(MANIFEST).exists() && !folder.exists()
        || subject.workspace.memo(instance).is_some_and(|memo| memo.fingerprint != fingerprint)
        || outputs.iter().any(|output| !cache.has_blob(&output.digest, output.size_bytes))
    {
        return Ok(());
    }
    let expected: Vec<_> = outputs.iter().map(|output| (output.path.as_str(), output.digest)).collect();
    if spdflow_cache::Cache::compare_folder(&folder, &expected).is_none() {
        return Ok(());
    }
    let known = known_of(&record.artifact, &record.metrics);
    if let Placed::Whole = subject.workspace.place(instance, &fingerprint, &known, outputs)? {
        done.push(format!("`{}`: its result was put back in `{}`", exhibit.instance, folder.display()));
    }
    Ok(())
}

/// Takes a result from the remote, and says whether it was there.
fn take(subject: &Subject<'_>, fingerprint: &spdflow_cache::Digest, remote: Option<&Remote>) -> Result<bool, RunError> {
    let Some(remote) = remote else { return Ok(false) };
    let lease = subject.workspace.cache.lease()?;
    lease.add(subject.workspace.cache, &[*fingerprint])?;
    let pulled = remote.pull(subject.workspace.cache, fingerprint, &|record| check_key(record), &|| false)?;
    Ok(matches!(pulled, Pulled::Taken(..)))
}
