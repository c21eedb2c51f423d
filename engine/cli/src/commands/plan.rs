//! `spdflow plan`: what `run` would do to every stage, and why.

use spdflow_engine::kind::Device;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::plan::{Action, Plan, Scope};
use spdflow_engine::workspace::Workspace;

use super::store;
use crate::args::{OutputArgs, PlanArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::table::Table;

/// Prints the plan.
pub(super) fn plan(args: &PlanArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let pipeline = &loaded.pipeline;
    let scope = store::scope(pipeline, &args.selection)?;
    let cache = store::open_keeping(&args.store, &loaded)?;
    let workspace = Workspace::new(&cache, &args.store.out, pipeline);
    print(pipeline, &workspace, &scope, args.store.device, style)
}

/// Prints the plan of `scope`; `run --dry-run` is the same.
pub(super) fn print(
    pipeline: &Pipeline,
    workspace: &Workspace<'_>,
    scope: &Scope,
    device: Device,
    style: &OutputArgs,
) -> Result<Exit, Failure> {
    let mut plan = store::make_plan(pipeline, workspace, scope, device, style.quiet)?;
    plan.explain(pipeline, workspace, scope, device)?;
    if style.json {
        super::print_json(json(pipeline, &plan));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["stage", "plan", "fingerprint", "why"]);
    for step in &plan.steps {
        table.row([
            pipeline.instances[step.index].id.to_string(),
            step.action.word().to_owned(),
            step.fingerprint.map(|fingerprint| fingerprint.short()).unwrap_or_default(),
            step.why.clone(),
        ]);
    }
    output::data(&table.text());
    Ok(Exit::Done)
}

/// Returns the plan as a JSON document.
pub(super) fn json(pipeline: &Pipeline, plan: &Plan) -> serde_json::Value {
    let steps = plan.steps.iter().map(|step| {
        serde_json::json!({
            "stage": pipeline.instances[step.index].id.to_string(),
            "plan": step.action.word(),
            "why": step.why,
            "compared": step.comparison,
            "fingerprint": step.fingerprint,
            "artifact": step.artifact(),
        })
    });
    serde_json::json!({
        "pipeline": pipeline.name,
        "counts": counts(plan).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "stages": steps.collect::<Vec<_>>(),
    })
}

/// Returns how many stages have each plan.
pub(super) fn counts(plan: &Plan) -> [(&'static str, usize); 4] {
    let count = |action: Action| plan.steps.iter().filter(|step| step.action == action).count();
    [Action::Fresh, Action::Cached, Action::Run, Action::Maybe].map(|action| (action.word(), count(action)))
}
