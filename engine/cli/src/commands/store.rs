//! What the commands that read the cache share: opening it, choosing stages, finding records.

use spdflow_engine::cache::remote::RemoteError;
use spdflow_engine::cache::{Cache, CacheError, Digest, Lookup, Record};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::error::RunError;
use spdflow_engine::kind::NumericTarget;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::plan::{Plan, Scope, plan};
use spdflow_engine::spec::Loaded;
use spdflow_engine::workspace::Workspace;

use crate::args::{SelectionArgs, StoreArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::text::warning;

/// Opens the cache that the command line names.
pub(super) fn open(args: &StoreArgs) -> Result<Cache, Failure> {
    Ok(Cache::open(&args.cache)?)
}

/// As [`open`], and keeps the pipeline in the cache's index.
pub(super) fn open_keeping(args: &StoreArgs, loaded: &Loaded) -> Result<Cache, Failure> {
    let cache = open(args)?;
    loaded.keep(&cache);
    Ok(cache)
}

/// Returns the part of the pipeline that the command line means.
pub(super) fn scope(pipeline: &Pipeline, selection: &SelectionArgs) -> Result<Scope, Failure> {
    let select = |stages: &[String]| match stages {
        [] => Ok(Vec::new()),
        stages => pipeline.select(stages).map_err(Failure::input),
    };
    let mut targets = select(&selection.stages)?;
    targets.extend(pipeline.downstream(&select(&selection.downstream)?));
    targets.extend(select(&selection.only)?);
    let is_whole = selection.stages.is_empty() && selection.downstream.is_empty() && selection.only.is_empty();
    let targets = (!is_whole).then_some(targets);
    Ok(Scope { targets, only: !selection.only.is_empty(), force: select(&selection.force)? })
}

/// Returns the stages named and what they need.
pub(super) fn targets(pipeline: &Pipeline, stages: &[String]) -> Result<Scope, Failure> {
    let targets = if stages.is_empty() { None } else { Some(pipeline.select(stages).map_err(Failure::input)?) };
    Ok(Scope { targets, ..Scope::default() })
}

/// Makes the plan and prints what was noticed on the way.
pub(super) fn make_plan(
    pipeline: &Pipeline,
    workspace: &Workspace<'_>,
    scope: &Scope,
    target: &NumericTarget,
    is_quiet: bool,
) -> Result<Plan, Failure> {
    let plan = plan(pipeline, workspace, scope, target)?;
    for (index, message) in plan.warnings.iter().filter(|_| !is_quiet) {
        output::message(&warning(&format!("`{}`: {message}", pipeline.instances[*index].id)));
    }
    Ok(plan)
}

/// Returns the record of `fingerprint`, if there is one that can be trusted.
pub(super) fn record(cache: &Cache, fingerprint: Option<Digest>) -> Result<Option<Box<Record>>, Failure> {
    let Some(fingerprint) = fingerprint else { return Ok(None) };
    match cache.read_record(&fingerprint)? {
        Lookup::Hit(record) => Ok(Some(record)),
        Lookup::Miss | Lookup::MissingBlob { .. } | Lookup::Corrupt { .. } => Ok(None),
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::new(Exit::Cache, Diagnostic::new(error.to_string()).hint_if_any(error.hint()))
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let exit = if matches!(error, RemoteError::BadUrl { .. }) { Exit::Input } else { Exit::Cache };
        Self::new(exit, Diagnostic::new(error.to_string()).hint_if_any(error.hint()))
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match error {
            RunError::TooLarge(report) => return Self::from(*report),
            RunError::Cache(_) | RunError::Remote(_) | RunError::KeepsBreaking { .. } => Exit::Cache,
            RunError::Drift(_) => Exit::Drift,
            RunError::OutputTaken { .. } | RunError::InputUnknown { .. } => Exit::Input,
        };
        Self::new(exit, Diagnostic::new(error.to_string()).hint_if_any(error.hint()))
    }
}
