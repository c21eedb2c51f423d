//! Level 4, authenticity: the log of runs is an unbroken chain, holds the records as they are, and is signed.
//!
//! Each line of the log names the digest of the line before it, the root of the hash tree over the run's results, and the
//! digests of the run's files (`cache/src/run_log.rs`). A record is authentic if some line's tree holds it as it is, and
//! signed if that line or a later one has a good signature.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use spdflow_cache::{Cache, CacheError, Digest, EVIDENCE, Evidence, LogEntry, LogLine, merkle};

use crate::audit::exhibit::Exhibit;
use crate::audit::finding::{Fault, Finding};
use crate::audit::signature::{self, Verdict};

/// Who has signed what.
#[derive(Debug, Default)]
pub(super) struct Signed {
    /// The signers of each exhibit that has any, by instance.
    pub(super) signers: BTreeMap<String, Vec<String>>,
}

/// Checks the log, and that it holds the exhibits.
pub(super) fn check(
    cache: &Cache,
    exhibits: &[Exhibit],
    signers: Option<&Path>,
    findings: &mut Vec<Finding>,
) -> Result<Signed, CacheError> {
    let chain = read_chain(cache, findings)?;
    let wanted: BTreeSet<Digest> =
        exhibits.iter().filter_map(|exhibit| Some(exhibit.recorded.as_ref()?.record.fingerprint)).collect();
    // For each fingerprint, the lines that have logged its record and which.
    let mut logged: BTreeMap<Digest, Vec<(usize, Evidence)>> = BTreeMap::new();
    for (position, (_, entry)) in chain.iter().enumerate() {
        let evidence = read_evidence(cache, entry, &wanted, findings);
        for leaf in evidence.into_iter().filter(|leaf| wanted.contains(&leaf.fingerprint)) {
            logged.entry(leaf.fingerprint).or_default().push((position, leaf));
        }
    }
    let signatures = check_signatures(cache, &chain, signers, findings)?;

    let mut signed = Signed::default();
    for exhibit in exhibits {
        let Some(recorded) = &exhibit.recorded else { continue };
        let (id, record) = (&exhibit.instance, &recorded.record);
        let leaves = logged.get(&record.fingerprint).map_or(&[][..], Vec::as_slice);
        let is_same = |leaf: &Evidence| leaf.record == recorded.digest && leaf.artifact == record.artifact.digest;
        let Some((first, _)) = leaves.iter().find(|(_, leaf)| is_same(leaf)) else {
            findings.push(match leaves.last() {
                Some((position, leaf)) => {
                    let run = &chain[*position].1.run;
                    let message = if leaf.artifact == record.artifact.digest {
                        format!("its record is not the one that run `{run}` has logged, though of the same artifact")
                    } else {
                        format!(
                            "its record names the artifact {}, run `{run}` has logged {}",
                            record.artifact.digest.short(),
                            leaf.artifact.short()
                        )
                    };
                    Finding::new(Fault::ChangedRecord, message).of(id)
                }
                None => Finding::new(Fault::NotLogged, "no run has logged its record").of(id).hint(
                    "an earlier spdflow made it, or the log or the history of its run was removed; delete its folder of \
                     results, and `spdflow run` puts it back and logs it as it is now",
                ),
            });
            continue;
        };
        // Whoever puts another result in its place and lets the next run rely on that has it logged, but not this one.
        if let Some((position, other)) = leaves.iter().find(|(_, leaf)| leaf.artifact != record.artifact.digest) {
            let message = format!(
                "run `{}` has logged the artifact {} for the same key, run `{}` {}: it was made again and is not \
                 reproducible, or somebody has put another in its place",
                chain[*position].1.run,
                other.artifact.short(),
                chain[*first].1.run,
                record.artifact.digest.short()
            );
            findings.push(Finding::new(Fault::ChangedRecord, message).of(id));
        }
        let mut who: Vec<String> = signatures.range(first..).flat_map(|(_, signers)| signers.clone()).collect();
        who.sort();
        who.dedup();
        if who.is_empty() {
            let finding = Finding::new(Fault::Unsigned, "nobody has signed the log since it was made").of(id);
            findings.push(finding.hint("`spdflow sign --key ~/.ssh/id_ed25519` signs the log as it is"));
        } else {
            signed.signers.insert(id.clone(), who);
        }
    }
    Ok(signed)
}

/// Reads the lines and checks that each follows from the one before.
fn read_chain(cache: &Cache, findings: &mut Vec<Finding>) -> Result<Vec<(LogLine, LogEntry)>, CacheError> {
    let file = cache.log_folder().join("runs.jsonl");
    let mut broken = |message: String| findings.push(Finding::new(Fault::BrokenLog, message).at(&file));
    let mut chain = Vec::new();
    let mut before: Option<Digest> = None;
    for (number, line) in cache.run_log()?.into_iter().enumerate() {
        let place = number + 1;
        let digest = line.digest;
        match line.entry.clone() {
            Ok(entry) => {
                if entry.previous != before {
                    broken(format!(
                        "line {place} of the log of runs (run `{}`) does not follow the line before it: lines were changed, \
                         removed or put in another order",
                        entry.run
                    ));
                } else if entry.sequence != number as u64 {
                    broken(format!("line {place} of the log of runs says that it is number {}", entry.sequence + 1));
                }
                chain.push((line, entry));
            }
            Err(reason) => broken(format!("line {place} of the log of runs cannot be read: {reason}")),
        }
        before = Some(digest);
    }
    Ok(chain)
}

/// Returns what a run has logged, if its tree has the root that the log says; of a run that made something that is audited,
/// the other files of its folder are compared as well.
fn read_evidence(
    cache: &Cache,
    entry: &LogEntry,
    wanted: &BTreeSet<Digest>,
    findings: &mut Vec<Finding>,
) -> Vec<Evidence> {
    let folder = cache.root().join("runs").join(&entry.run);
    let path = folder.join(EVIDENCE);
    let changed =
        |message: String, path: &Path| Finding::new(Fault::ChangedHistory, message).in_file(path.display().to_string());
    let text = match fs::read(&path) {
        Ok(text) => text,
        // Whoever removes the history of a run takes its evidence away, which is told of each record that lacks it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => return Vec::new(),
        Err(error) => {
            findings.push(changed(format!("the evidence of run `{}` cannot be read: {error}", entry.run), &path));
            return Vec::new();
        }
    };
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let leaves: Vec<Digest> = lines.iter().map(|line| merkle::leaf(line)).collect();
    if merkle::root(&leaves) != entry.root || leaves.len() as u64 != entry.results {
        let message = format!("the evidence of run `{}` is not what the log of runs says", entry.run);
        findings.push(changed(message, &path));
        return Vec::new();
    }
    let evidence: Vec<Evidence> = lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
    if evidence.iter().any(|leaf| wanted.contains(&leaf.fingerprint)) {
        for (name, digest) in &entry.files {
            let path = folder.join(name);
            match fs::read(&path) {
                Ok(bytes) if Digest::of(&bytes) == *digest => {}
                Ok(_) => {
                    let message = format!("`{name}` of run `{}` is not what the log of runs says", entry.run);
                    findings.push(changed(message, &path));
                }
                Err(error) => {
                    let message = format!("`{name}` of run `{}` cannot be read: {error}", entry.run);
                    findings.push(changed(message, &path));
                }
            }
        }
    }
    evidence
}

/// Returns the good signers of lines, by the position of the line.
fn check_signatures(
    cache: &Cache,
    chain: &[(LogLine, LogEntry)],
    signers: Option<&Path>,
    findings: &mut Vec<Finding>,
) -> Result<BTreeMap<usize, Vec<String>>, CacheError> {
    let lines: BTreeMap<Digest, usize> =
        chain.iter().enumerate().map(|(position, (line, _))| (line.digest, position)).collect();
    let mut good: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (file, digest) in cache.signed_lines()? {
        // What is not named as a signature is none.
        let Some(digest) = digest else { continue };
        let Some(position) = lines.get(&digest).copied() else {
            let message =
                "a signature belongs to a line that the log of runs does not have: lines were changed or removed";
            findings.push(Finding::new(Fault::BrokenLog, message).at(&file));
            continue;
        };
        let (line, entry) = &chain[position];
        match signature::check(&file, &line.bytes, signers, &entry.time) {
            Ok(Verdict::Good { signer }) => good.entry(position).or_default().push(signer),
            Ok(Verdict::Stranger { reason }) => {
                let message = format!("a signature of run `{}` does not count: {reason}", entry.run);
                findings.push(Finding::new(Fault::Note, message).at(&file));
            }
            Ok(Verdict::Bad { reason }) => {
                let message = format!("a signature of run `{}` is not good: {reason}", entry.run);
                findings.push(Finding::new(Fault::BadSignature, message).at(&file));
            }
            Err(error) => {
                let finding = Finding::new(Fault::CouldNotRun, error.to_string()).at(&file);
                findings.push(finding.hint(error.hint()));
            }
        }
    }
    Ok(good)
}
