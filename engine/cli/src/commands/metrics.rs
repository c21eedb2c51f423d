//! `spdflow metrics`: the headline numbers of a pipeline's stages, one to a line, or compared in a table.

mod compared;

use spdflow_engine::cache::{Cache, Record};
use spdflow_engine::pipeline::Instance;
use spdflow_engine::workspace::Workspace;
use spdflow_stages::artifact::metric_log::MetricLog;

use super::store;
use crate::args::{MetricsArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::table::Table;
use crate::report::text::number;

/// An instance and what is known about its result.
struct Measured<'a> {
    instance: &'a Instance,
    /// Its result, if there is one.
    record: Option<Box<Record>>,
    /// Why there is none.
    why: String,
}

/// Prints one line per stage and number, or a table with a line per instance if a sweep, an order or groups are asked
/// for; stages without a result have none.
pub(super) fn metrics(args: &MetricsArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let pipeline = &loaded.pipeline;
    let chosen = pipeline.select(&args.stages).map_err(Failure::input)?;
    let scope = store::targets(pipeline, &args.stages)?;
    let cache = store::open_keeping(&args.store, &loaded)?;
    let workspace = Workspace::new(&cache, &args.store.out, pipeline);
    let plan = store::make_plan(pipeline, &workspace, &scope, &args.store.target(), true)?;
    let mut measured = Vec::new();
    for step in plan.steps.iter().filter(|step| chosen.contains(&step.index)) {
        measured.push(Measured {
            instance: &pipeline.instances[step.index],
            record: store::record(&cache, step.fingerprint)?,
            why: step.why.to_string(),
        });
    }
    let is_compared =
        pipeline.sweep.is_some() || args.sort.is_some() || !args.group_by.is_empty() || !args.columns.is_empty();
    if is_compared {
        let table = compared::Comparison::new(pipeline, &measured, &cache, args)?;
        if style.json {
            super::print_json(table.document(&pipeline.name));
        } else {
            output::data(&table.text());
        }
    } else if style.json {
        let stage = |measured: &Measured<'_>| {
            let metrics = measured.record.as_ref().map(|record| &record.metrics);
            serde_json::json!({ "stage": measured.instance.id.to_string(), "metrics": metrics })
        };
        let stages: Vec<_> = measured.iter().map(stage).collect();
        super::print_json(serde_json::json!({ "pipeline": pipeline.name, "stages": stages }));
    } else {
        output::data(&lines(&measured));
    }
    Ok(Exit::Done)
}

fn lines(measured: &[Measured<'_>]) -> String {
    let mut table = Table::new(&["stage", "metric", ">value"]);
    for Measured { instance, record, why } in measured {
        let id = instance.id.to_string();
        match record {
            None => table.row([id, format!("no result: {why}"), String::new()]),
            Some(record) => {
                for metric in &record.metrics {
                    table.row([id.clone(), metric.name.clone(), number(metric.value)]);
                }
            }
        }
    }
    table.text()
}

/// Returns all that a run has logged (`metrics.parquet`), if it has.
fn log_of(cache: &Cache, record: &Record) -> Option<MetricLog> {
    let file = record.artifact.outputs.iter().find(|file| file.path == "metrics.parquet")?;
    // A damaged file is found when it is restored; here it is as good as none.
    MetricLog::read(&cache.blob_path(&file.digest)).ok()
}

/// Returns the last value of the number that has this name, or one that ends with it: `loss/total` is
/// `train/loss/total`.
fn logged(log: &MetricLog, name: &str) -> Option<f64> {
    let ending = format!("/{name}");
    let known = log.names().into_iter().find(|known| *known == name || known.ends_with(&ending));
    known.and_then(|known| log.last(known))
}
