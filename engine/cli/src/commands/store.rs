//! What the commands that read the cache share: opening it, choosing stages, finding records.

use spdflow_engine::cache::{Cache, CacheError, Digest, Lookup, Record};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::error::RunError;
use spdflow_engine::kind::Device;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::plan::{Plan, Scope, plan};
use spdflow_engine::workspace::Workspace;

use crate::args::StoreArgs;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::text::warning;

/// Opens the cache that the command line names.
pub(super) fn open(args: &StoreArgs) -> Result<Cache, Failure> {
    Ok(Cache::open(&args.cache)?)
}

/// Returns the part of the pipeline that the command line means.
pub(super) fn scope(pipeline: &Pipeline, stages: &[String], force: &[String]) -> Result<Scope, Failure> {
    let select = |stages: &[String]| pipeline.select(stages).map_err(Failure::input);
    let targets = if stages.is_empty() { None } else { Some(select(stages)?) };
    let force = if force.is_empty() { Vec::new() } else { select(force)? };
    Ok(Scope { targets, force })
}

/// Makes the plan and prints what was noticed on the way.
pub(super) fn make_plan(
    pipeline: &Pipeline,
    workspace: &Workspace<'_>,
    scope: &Scope,
    device: Device,
    is_quiet: bool,
) -> Result<Plan, Failure> {
    let plan = plan(pipeline, workspace, scope, device)?;
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

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match error {
            RunError::Cache(_) | RunError::KeepsBreaking { .. } => Exit::Cache,
            RunError::Fingerprint { .. } | RunError::OutputTaken { .. } => Exit::Input,
        };
        Self::new(exit, Diagnostic::new(error.to_string()).hint_if_any(error.hint()))
    }
}
