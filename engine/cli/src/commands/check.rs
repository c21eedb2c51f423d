//! `spdflow check`: reads a pipeline and reports every mistake without running anything.

use std::collections::BTreeSet;

use crate::args::{CheckArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Says that the pipeline is right; a wrong one never gets past loading.
pub(super) fn check(args: &CheckArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let pipeline = super::load(&args.pipeline)?;
    let stages = pipeline.instances.iter().map(|instance| &instance.id.stage).collect::<BTreeSet<_>>().len();
    let instances = pipeline.instances.len();
    if style.json {
        super::print_json(serde_json::json!({
            "pipeline": pipeline.name, "stages": stages, "instances": instances, "errors": [],
        }));
    } else if !style.quiet {
        let stages = counted(stages, "stage");
        let instances = counted(instances, "instance");
        output::data(&format!("pipeline `{}` is right: {stages}, {instances}\n", pipeline.name));
    }
    Ok(Exit::Done)
}

fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
