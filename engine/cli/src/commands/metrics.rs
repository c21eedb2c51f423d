//! `spdflow metrics`: the headline numbers of a pipeline's stages.

use spdflow_engine::workspace::Workspace;

use super::store;
use crate::args::{MetricsArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::table::Table;
use crate::report::text::number;

/// Prints one line per stage and number; stages without a result have none.
pub(super) fn metrics(args: &MetricsArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let pipeline = super::load(&args.pipeline)?;
    let chosen = pipeline.select(&args.stages).map_err(Failure::input)?;
    let scope = store::scope(&pipeline, &args.stages, &[])?;
    let cache = store::open(&args.store)?;
    let workspace = Workspace::new(&cache, &args.store.out, &pipeline);
    let plan = store::make_plan(&pipeline, &workspace, &scope, args.store.device, true)?;
    let mut table = Table::new(&["stage", "metric", ">value"]);
    let mut documents = Vec::new();
    for step in plan.steps.iter().filter(|step| chosen.contains(&step.index)) {
        let id = pipeline.instances[step.index].id.to_string();
        let Some(record) = store::record(&cache, step.fingerprint)? else {
            table.row([id.clone(), format!("no result: {}", step.why), String::new()]);
            documents.push(serde_json::json!({ "stage": id, "metrics": null }));
            continue;
        };
        for metric in &record.metrics {
            table.row([id.clone(), metric.name.clone(), number(metric.value)]);
        }
        documents.push(serde_json::json!({ "stage": id, "metrics": record.metrics }));
    }
    if style.json {
        super::print_json(serde_json::json!({ "pipeline": pipeline.name, "stages": documents }));
    } else {
        output::data(&table.text());
    }
    Ok(Exit::Done)
}
