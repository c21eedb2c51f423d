//! `spdflow plan`: what `run` would do to every stage, and why.

use spdflow_engine::capacity::Capacity;
use spdflow_engine::expectation::Expectation;
use spdflow_engine::kind::NumericTarget;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::plan::{Action, Plan, Scope};
use spdflow_engine::workspace::Workspace;

use super::{machine, store};
use crate::args::{OutputArgs, PlanArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::table::Table;
use crate::report::text::whole_duration;

/// Prints the plan.
pub(super) fn plan(args: &PlanArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let pipeline = &loaded.pipeline;
    let scope = store::scope(pipeline, &args.selection)?;
    let cache = store::open_keeping(&args.store, &loaded)?;
    let workspace = Workspace::new(&cache, &args.store.out, pipeline);
    let capacity = machine::capacity(&args.machine, pipeline)?;
    print(pipeline, &workspace, &scope, &args.store.target(), &capacity, style)
}

/// Prints the plan of `scope`; `run --dry-run` is the same.
pub(super) fn print(
    pipeline: &Pipeline,
    workspace: &Workspace<'_>,
    scope: &Scope,
    target: &NumericTarget,
    capacity: &Capacity,
    style: &OutputArgs,
) -> Result<Exit, Failure> {
    let mut plan = store::make_plan(pipeline, workspace, scope, target, style.quiet)?;
    plan.explain(pipeline, workspace, scope, target)?;
    let expectation = Expectation::new(pipeline, &plan, workspace.cache());
    let total_seconds = expectation.total_seconds(pipeline, capacity);
    if style.json {
        super::print_json(json(pipeline, &plan, &expectation, total_seconds));
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
    output::data(&expected_line(total_seconds, capacity.jobs));
    Ok(Exit::Done)
}

/// Shorter than this, and nobody needs to know how long it takes.
const SHORT_SECONDS: f64 = 5.0;

/// Returns a line that says how long it will take, nothing if that is short or not known.
pub(super) fn expected_line(seconds: Option<f64>, jobs: usize) -> String {
    let Some(seconds) = seconds.filter(|seconds| *seconds >= SHORT_SECONDS) else { return String::new() };
    let jobs = if jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") };
    format!("about {} with {jobs}\n", whole_duration(seconds))
}

/// Returns the plan as a JSON document.
pub(super) fn json(
    pipeline: &Pipeline,
    plan: &Plan,
    expectation: &Expectation,
    total_seconds: Option<f64>,
) -> serde_json::Value {
    let steps = plan.steps.iter().map(|step| {
        serde_json::json!({
            "stage": pipeline.instances[step.index].id.to_string(),
            "plan": step.action.word(),
            "why": step.why,
            "compared": step.comparison,
            "fingerprint": step.fingerprint,
            "artifact": step.artifact(),
            "expected_seconds": expectation.known_seconds(step.index),
        })
    });
    serde_json::json!({
        "pipeline": pipeline.name,
        "counts": counts(plan).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "expected_seconds": total_seconds,
        "stages": steps.collect::<Vec<_>>(),
    })
}

/// Returns how many stages have each plan.
pub(super) fn counts(plan: &Plan) -> [(&'static str, usize); 4] {
    let count = |action: Action| plan.steps.iter().filter(|step| step.action == action).count();
    [Action::Fresh, Action::Cached, Action::Run, Action::Maybe].map(|action| (action.word(), count(action)))
}
