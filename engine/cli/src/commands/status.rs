//! `spdflow status`: which stages are up to date.

use spdflow_engine::expectation::Expectation;
use spdflow_engine::plan::Action;
use spdflow_engine::workspace::Workspace;

use super::{machine, plan, store};
use crate::args::{OutputArgs, StatusArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Prints one line about the whole and one per stage that is not up to date.
pub(super) fn status(args: &StatusArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let pipeline = &loaded.pipeline;
    let scope = store::targets(pipeline, &args.stages)?;
    let cache = store::open_keeping(&args.store, &loaded)?;
    let workspace = Workspace::new(&cache, &args.store.out, pipeline);
    let mut made = store::make_plan(pipeline, &workspace, &scope, &args.store.target(), style.quiet)?;
    made.explain(pipeline, &workspace, &scope, &args.store.target())?;
    let is_stale = made.steps.iter().any(|step| step.action != Action::Fresh);
    let capacity = machine::capacity(&args.machine, pipeline)?;
    let expectation = Expectation::new(pipeline, &made, &cache);
    let total_seconds = expectation.total_seconds(pipeline, &capacity);
    if style.json {
        let mut document = plan::json(pipeline, &made, &expectation, total_seconds);
        document["is_stale"] = is_stale.into();
        super::print_json(document);
    } else {
        let counts: Vec<_> = plan::counts(&made)
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        output::data(&format!("{}: {}\n", pipeline.name, counts.join(", ")));
        for step in made.steps.iter().filter(|step| step.action != Action::Fresh) {
            let id = &pipeline.instances[step.index].id;
            output::data(&format!("  {:6}  {id}: {}\n", step.action.word(), step.why));
        }
        output::data(&plan::expected_line(total_seconds, capacity.jobs));
    }
    Ok(if is_stale && args.exit_code { Exit::Stale } else { Exit::Done })
}
