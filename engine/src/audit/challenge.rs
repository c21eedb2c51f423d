//! Level 5, challenge: what somebody else's cache has for the same keys, without computing anything.
//!
//! Equal keys and other bytes mean that a stage is not reproducible from machine to machine, or that somebody changed
//! something. The cache of another machine, a remote and an unpacked bundle are challenged in the same way.

use serde::Serialize;
use spdflow_cache::Record;
use spdflow_cache::remote::{Pulled, Remote, RemoteError};

use crate::audit::exhibit::Exhibit;
use crate::audit::finding::{Fault, Finding};
use crate::fingerprint::check_key;
use crate::kind::StopFlag;
use crate::suggest::listed;

/// What a challenge came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Challenge {
    /// Who was asked.
    pub against: String,
    /// How many results are the same there.
    pub same: usize,
    /// How many are there with other bytes.
    pub other: usize,
    /// How many are not there.
    pub absent: usize,
}

/// Compares the exhibits with what a remote has.
pub(super) fn check(
    remote: &Remote,
    exhibits: &[Exhibit],
    stop: &StopFlag,
    findings: &mut Vec<Finding>,
) -> Result<Challenge, RemoteError> {
    let mut challenge = Challenge { against: remote.url().to_owned(), same: 0, other: 0, absent: 0 };
    for exhibit in exhibits {
        let Some(recorded) = &exhibit.recorded else { continue };
        let here = &recorded.record;
        let there = match remote.record(&here.fingerprint, &|record| check_key(record), &|| stop.is_raised())? {
            Ok(there) => there,
            Err(Pulled::Damaged { object, reason }) => {
                let message = format!("`{object}` of `{}` cannot be trusted: {reason}", remote.url());
                findings.push(Finding::new(Fault::Note, message).of(&exhibit.instance));
                challenge.absent += 1;
                continue;
            }
            Err(_) => {
                challenge.absent += 1;
                continue;
            }
        };
        if there.artifact.digest == here.artifact.digest {
            challenge.same += 1;
            continue;
        }
        challenge.other += 1;
        let message = format!(
            "`{}` has other bytes for the same key: {}; here {}, there {}",
            remote.url(),
            differing(here, &there),
            origin(here),
            origin(&there)
        );
        findings.push(Finding::new(Fault::Challenged, message).of(&exhibit.instance));
    }
    if challenge.same + challenge.other == 0 && !exhibits.is_empty() {
        let message = format!("`{}` has none of the results, so it says nothing about them", remote.url());
        findings.push(Finding::new(Fault::Note, message));
    }
    Ok(challenge)
}

/// Returns the names of the files that are not the same.
fn differing(here: &Record, there: &Record) -> String {
    let lacks = |record: &Record, path: &str, digest| {
        !record.artifact.outputs.iter().any(|output| output.path == path && output.digest == digest)
    };
    let pairs = [(here, there), (there, here)];
    let mut files: Vec<&str> = pairs
        .iter()
        .flat_map(|(one, other)| {
            let outputs = one.artifact.outputs.iter();
            outputs.filter(|output| lacks(other, &output.path, output.digest)).map(|output| output.path.as_str())
        })
        .collect();
    files.sort_unstable();
    files.dedup();
    listed(files)
}

/// Returns where and by what a result was made, as far as bytes may depend on it.
fn origin(record: &Record) -> String {
    let machine = &record.machine;
    let widest =
        ["avx512f", "avx2", "avx"].into_iter().find(|feature| machine.cpu_features.iter().any(|has| has == feature));
    format!(
        "{} on {} ({}, {}), {} threads, spdflow {}",
        record.usage.device,
        machine.processor,
        machine.platform,
        widest.unwrap_or("no AVX"),
        record.usage.threads,
        record.build.git_commit.chars().take(12).collect::<String>()
    )
}
