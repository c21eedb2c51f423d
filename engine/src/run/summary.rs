//! What became of a run: the result of each instance, how the whole ended, and what the log of runs says of it.

use spdflow_cache::{CacheError, Digest, Evidence, Metric};

use crate::event::{Outcome, RunStatus};
use crate::pipeline::Pipeline;
use crate::run::schedule::{Done, State};
use crate::run::stage::StageFailure;
use crate::workspace::Workspace;

/// What became of a run.
#[derive(Debug)]
pub struct RunSummary {
    /// Its id in the cache.
    pub run: String,
    /// How it ended.
    pub status: RunStatus,
    /// Each instance in scope, in the order of the pipeline.
    pub results: Vec<InstanceResult>,
    /// The stages that failed.
    pub failures: Vec<StageFailure>,
    /// How long it took.
    pub seconds: f64,
    /// Whether it has a line in the log of runs: it had work to do, or one before it was not logged.
    pub is_logged: bool,
}

/// What became of one instance.
#[derive(Debug, Clone)]
pub struct InstanceResult {
    /// Its index in the pipeline.
    pub index: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// The first of its metrics.
    pub headline: Option<Metric>,
    /// The digest of its artifact, if it has one.
    pub artifact: Option<Digest>,
    /// Its fingerprint, if its inputs became known.
    pub fingerprint: Option<Digest>,
}

/// Returns what the log of runs says of results: those of them that there are, in the order of the pipeline.
pub(crate) fn evidence(
    pipeline: &Pipeline,
    workspace: &Workspace<'_>,
    mut results: Vec<(usize, Option<Digest>, Option<Digest>)>,
) -> Result<Vec<Evidence>, CacheError> {
    results.sort_unstable_by_key(|(index, ..)| *index);
    let mut evidence = Vec::with_capacity(results.len());
    for (index, fingerprint, artifact) in results {
        let (Some(fingerprint), Some(artifact)) = (fingerprint, artifact) else { continue };
        // Whoever deletes a record while the run ends takes its place in the log with it.
        let Some(record) = workspace.cache.record_digest(&fingerprint)? else { continue };
        let instance = pipeline.instances[index].id.to_string();
        evidence.push(Evidence { instance, fingerprint, artifact, record });
    }
    Ok(evidence)
}

/// Returns the result of an instance that has one.
pub(crate) fn result(index: usize, done: Done) -> InstanceResult {
    InstanceResult {
        index,
        outcome: done.outcome,
        seconds: done.seconds,
        headline: done.known.headline,
        artifact: Some(done.known.artifact),
        fingerprint: Some(done.fingerprint),
    }
}

/// Returns the results of a run, in the order of the pipeline.
pub(crate) fn results(states: Vec<State>) -> Vec<InstanceResult> {
    let result = |(index, state)| match state {
        State::OutOfScope | State::Given(_) => None,
        State::Done(done) => Some(result(index, done)),
        State::Ended(outcome, seconds) => {
            Some(InstanceResult { index, outcome, seconds, headline: None, artifact: None, fingerprint: None })
        }
        State::Waiting(_) | State::Ready | State::Busy(_) => panic!("instance {index} was left {state:?}"),
    };
    states.into_iter().enumerate().filter_map(result).collect()
}

/// Returns how a run with these results ended.
pub(crate) fn status(results: &[InstanceResult], keep_going: bool) -> RunStatus {
    let any = |outcome| results.iter().any(|result| result.outcome == outcome);
    match (any(Outcome::Failed), any(Outcome::Interrupted)) {
        (_, true) => RunStatus::Interrupted,
        (true, _) if keep_going => RunStatus::SomeFailed,
        (true, _) => RunStatus::Failed,
        // Without a failure only a stop leaves instances untried.
        (false, _) if any(Outcome::Skipped) => RunStatus::Interrupted,
        (false, _) => RunStatus::Done,
    }
}
