//! The audit: proves from the cache that results follow from their inputs, or says where they do not.
//!
//! Levels build on one another: 0 everything is recorded (`exhibit.rs`), 1 every byte is as it was (`integrity.rs`), 2 keys
//! and numbers follow from what is recorded (`derivation.rs`), 3 results can be made again (`reproduction/`), 4 the log of runs
//! vouches for the records (`authenticity.rs`, `signature.rs`), 5 others have the same (`challenge.rs`). What is found are
//! [`Finding`]s; what is proved is a [`Grade`] for each output. Nothing is written but by `repair.rs`, which has to be asked for.

pub mod exhibit;
pub mod finding;
pub mod format;
pub mod signature;

mod authenticity;
mod challenge;
mod derivation;
mod integrity;
mod repair;
mod reproduction;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use spdflow_cache::remote::Remote;
use spdflow_cache::{BuildInfo, Digest};

pub use challenge::Challenge;
pub use integrity::Reading;
pub use reproduction::{Extent, TrialReport, Variation};

use crate::error::RunError;
use crate::kind::{NumericTarget, StopFlag};
use crate::lock::Lock;
use crate::pipeline::Pipeline;
use crate::plan::Scope;
use crate::workspace::Workspace;
use exhibit::Exhibit;
use finding::{Class, Fault, Finding, Grade, Reproduction, grade};
use format::Formats;

/// What is audited.
pub struct Subject<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// Its cache and its results.
    pub workspace: &'a Workspace<'a>,
    /// What it is to be like, if somebody wrote that down.
    pub lock: Option<&'a Lock>,
    /// What of where results are computed enters their keys.
    pub target: NumericTarget,
    /// The arguments of `spdflow run` with which the pipeline's file is this pipeline.
    pub arguments: Vec<String>,
    /// The environment variables that the pipeline looks at, with their values; nothing for one that is not set.
    pub variables: BTreeMap<String, Option<String>>,
    /// How many threads the audit may use.
    pub threads: usize,
    /// Blobs that are not there because somebody left them out and said so.
    pub absent: BTreeSet<Digest>,
    /// What was found before the audit began.
    pub findings: Vec<Finding>,
}

/// How to audit.
pub struct Options<'a> {
    /// Up to which level, 0 to 5.
    pub level: u8,
    /// What is varied when results are made again.
    pub vary: &'a [Variation],
    /// How many results are made again; nothing if none are.
    pub extent: Option<Extent>,
    /// The program that makes them again: this one.
    pub program: PathBuf,
    /// Where it does; must be empty.
    pub scratch: &'a Path,
    /// Who may sign, as a file that `ssh-keygen` reads.
    pub signers: Option<&'a Path>,
    /// Who is asked for the same results, and for what has to be repaired.
    pub against: Option<&'a Remote>,
    /// Whether what is damaged is mended.
    pub repair: bool,
    /// This program.
    pub build: &'a BuildInfo,
    /// What is known of file formats.
    pub formats: &'a Formats,
    /// Raised when the user wants to stop.
    pub stop: &'a StopFlag,
    /// Hears what is being done.
    pub tell: &'a dyn Fn(&str),
}

/// What an audit came to.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// The pipeline's name.
    pub pipeline: String,
    /// Up to which level.
    pub level: u8,
    /// The verdict on each output, in the order of the pipeline.
    pub outputs: Vec<Verdict>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// How much was read, if level 1 was asked for.
    pub reading: Option<Reading>,
    /// What was made again, if level 3 was asked for.
    pub trials: Vec<TrialReport>,
    /// What others have, if somebody was asked.
    pub challenge: Option<Challenge>,
    /// What was mended.
    pub repairs: Vec<String>,
}

/// The verdict on one output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whose it is.
    pub instance: String,
    /// Its path in the artifact.
    pub file: String,
    /// Its digest.
    pub digest: Digest,
    /// How well it is proved.
    pub grade: Grade,
    /// The instance before it whose fault made the grade worse than its own.
    pub because: Option<String>,
    /// What became of making it again, if that was tried and it is as it should be.
    pub reproduced: Option<Reproduction>,
    /// Who has signed it.
    pub signers: Vec<String>,
}

impl Audit {
    /// Returns the class of the worst finding.
    #[must_use]
    pub fn worst(&self) -> Class {
        self.findings.iter().map(|finding| finding.fault.class()).max().unwrap_or(Class::Note)
    }
}

/// Audits the part of a pipeline that `scope` means.
///
/// # Errors
/// [`RunError`] if the cache or the remote cannot be used; what is wrong with results is a finding.
pub fn audit(subject: &Subject<'_>, scope: &Scope, options: &Options<'_>) -> Result<Audit, RunError> {
    let mut repairs = Vec::new();
    if options.repair {
        let members = scope.members(subject.pipeline);
        (options.tell)("and repairing what is damaged");
        repairs = repair::repair(subject, &members, options.against)?;
    }
    look(subject, scope, options, repairs)
}

fn look(subject: &Subject<'_>, scope: &Scope, options: &Options<'_>, repairs: Vec<String>) -> Result<Audit, RunError> {
    let Options { level, .. } = *options;
    let members = scope.members(subject.pipeline);
    let mut findings = subject.findings.clone();
    let exhibits = exhibit::collect(subject, &members, &mut findings)?;
    let reading = (level >= 1).then(|| integrity::check(subject, &exhibits, &mut findings));
    if level >= 2 {
        derivation::check(subject, &exhibits, options.formats, options.build, &mut findings);
    }
    let mut reproduced = reproduction::Reproduced::default();
    if let Some(extent) = options.extent.filter(|_| level >= 3) {
        let reproducer = reproduction::Reproducer::new(
            subject,
            &exhibits,
            options.formats,
            options.program.clone(),
            options.scratch,
            options.stop,
            options.tell,
        );
        reproduced = reproducer.check(options.vary, extent, &mut findings);
        settle_other_builds(&exhibits, &reproduced, &mut findings);
    }
    let mut signed = authenticity::Signed::default();
    if level >= 4 {
        signed = authenticity::check(subject.workspace.cache, &exhibits, options.signers, &mut findings)?;
    }
    let challenge = options.against.filter(|_| level >= 5 || !options.repair);
    let challenge = challenge.map(|remote| challenge::check(remote, &exhibits, options.stop, &mut findings));
    let outputs = verdicts(subject, level, &exhibits, &findings, &reproduced, &signed);
    // The order in which they were found among those that are equally bad.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.fault.class()));
    Ok(Audit {
        pipeline: subject.pipeline.name.clone(),
        level,
        outputs,
        findings,
        reading,
        trials: reproduced.trials,
        challenge: challenge.transpose()?,
        repairs,
    })
}

/// That another program made a result does not matter once this one has made it again.
fn settle_other_builds(exhibits: &[Exhibit], reproduced: &reproduction::Reproduced, findings: &mut [Finding]) {
    for exhibit in exhibits {
        let Some(recorded) = &exhibit.recorded else { continue };
        let outputs = recorded.record.artifact.outputs.iter();
        let outcomes: Option<Vec<Reproduction>> =
            outputs.map(|output| reproduced.files.get(&(exhibit.index, output.path.clone())).copied()).collect();
        let Some(worst) = outcomes.and_then(|outcomes| outcomes.into_iter().max()) else { continue };
        let made = match worst {
            Reproduction::Exact => "this one makes the same",
            Reproduction::Within => "this one makes the same within the tolerances",
        };
        let own = findings.iter_mut().filter(|finding| {
            finding.fault == Fault::OtherBuild && finding.instance.as_deref() == Some(&exhibit.instance)
        });
        for finding in own {
            finding.fault = Fault::Note;
            finding.message += &format!("; {made}");
            finding.hint = None;
        }
    }
}

/// Returns the verdict on each output: what is found of it, of its instance, of everything before that, and of the whole.
fn verdicts(
    subject: &Subject<'_>,
    level: u8,
    exhibits: &[Exhibit],
    findings: &[Finding],
    reproduced: &reproduction::Reproduced,
    signed: &authenticity::Signed,
) -> Vec<Verdict> {
    let mut by_instance: BTreeMap<Option<&str>, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        by_instance.entry(finding.instance.as_deref()).or_default().push(finding);
    }
    let about = |instance| by_instance.get(&instance).map_or(&[][..], Vec::as_slice);
    let general: Vec<Fault> = about(None).iter().map(|finding| finding.fault).collect();
    // The worst fault of everything an instance rests on, and whose it is. A fault of one file of a producer taints all that
    // is made from it.
    let mut tainted: Vec<Option<(Fault, String)>> = vec![None; subject.pipeline.instances.len()];
    let mut verdicts = Vec::new();
    for exhibit in exhibits {
        let own = about(Some(exhibit.instance.as_str()));
        let parents = subject.pipeline.instances[exhibit.index].parents();
        let before = parents.filter_map(|parent| tainted[parent].clone()).max_by_key(|(fault, _)| fault.class());
        for output in exhibit.recorded.iter().flat_map(|recorded| &recorded.record.artifact.outputs) {
            let is_of_this = |finding: &&&Finding| finding.file.as_ref().is_none_or(|file| *file == output.path);
            let faults = own.iter().filter(is_of_this).map(|finding| finding.fault).chain(general.iter().copied());
            let mut faults: Vec<Fault> = faults.collect();
            let signers = signed.signers.get(&exhibit.instance).cloned().unwrap_or_default();
            let outcome = reproduced.files.get(&(exhibit.index, output.path.clone())).copied();
            let by_itself = grade(level, &faults, outcome, !signers.is_empty());
            faults.extend(before.as_ref().map(|(fault, _)| *fault));
            let grade = grade(level, &faults, outcome, !signers.is_empty());
            verdicts.push(Verdict {
                instance: exhibit.instance.clone(),
                file: output.path.clone(),
                digest: output.digest,
                grade,
                because: before.as_ref().filter(|_| grade > by_itself).map(|(_, instance)| instance.clone()),
                reproduced: outcome,
                signers,
            });
        }
        let taints = |fault: &Fault| fault.class() > Class::Drift && *fault != Fault::Unsigned;
        let worst = own.iter().map(|finding| finding.fault).filter(taints).max_by_key(|fault| fault.class());
        let own = worst.map(|fault| (fault, exhibit.instance.clone()));
        tainted[exhibit.index] = [before, own].into_iter().flatten().max_by_key(|(fault, _)| fault.class());
    }
    verdicts
}

/// Fewer pieces of work than this are not worth another thread.
const LEAST_EACH: usize = 16;

/// Takes the next of the items that several threads share, with its position.
fn take<'i, T>(items: &'i [T], next: &AtomicUsize) -> Option<(usize, &'i T)> {
    let position = next.fetch_add(1, Ordering::Relaxed);
    Some((position, items.get(position)?))
}

/// Lets up to `threads` threads, but no more than `parts`, do `work`, each until there is no more.
fn on_threads(threads: usize, parts: usize, work: &(dyn Fn() + Sync)) {
    std::thread::scope(|scope| {
        for number in 1..threads.min(parts) {
            let thread = std::thread::Builder::new().name(format!("audit-{number}"));
            // Without a helper it takes longer, no more.
            let _ = thread.spawn_scoped(scope, work);
        }
        work();
    });
}
