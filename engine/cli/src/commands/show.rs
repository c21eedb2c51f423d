//! `spdflow show`: what a stage made, from what, by which program and when.

use std::fmt::Write;

use spdflow_engine::cache::{Digest, Record};
use spdflow_engine::pipeline::Instance;
use spdflow_engine::workspace::Workspace;

use super::store;
use crate::args::{OutputArgs, ShowArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::table::Table;
use crate::report::text::{duration, number, size};

/// Prints the records of the chosen stages; without a choice, those of all, without parameters and build.
pub(super) fn show(args: &ShowArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let pipeline = &loaded.pipeline;
    let chosen = pipeline.select(&args.stages).map_err(Failure::input)?;
    let scope = store::targets(pipeline, &args.stages)?;
    let cache = store::open_keeping(&args.store, &loaded)?;
    let workspace = Workspace::new(&cache, &args.store.out, pipeline);
    let plan = store::make_plan(pipeline, &workspace, &scope, &args.store.target(), style.quiet)?;
    let mut documents = Vec::new();
    let mut texts = Vec::new();
    for step in plan.steps.iter().filter(|step| chosen.contains(&step.index)) {
        let instance = &pipeline.instances[step.index];
        let record = store::record(&cache, step.fingerprint)?;
        let path = workspace.folder(instance).display().to_string();
        documents.push(serde_json::json!({
            "stage": instance.id.to_string(), "plan": step.action.word(), "why": step.why,
            "fingerprint": step.fingerprint, "path": path, "record": record,
        }));
        texts.push(match record {
            Some(record) => text(instance, &record, &path, !args.stages.is_empty()),
            None => format!("{} has no result yet: {}\n", instance.id, step.why),
        });
    }
    if style.json {
        super::print_json(serde_json::json!({ "pipeline": pipeline.name, "stages": documents }));
    } else {
        output::data(&texts.join("\n"));
    }
    Ok(Exit::Done)
}

fn text(instance: &Instance, record: &Record, path: &str, is_whole: bool) -> String {
    let mut text = format!("{}\n", instance.id);
    let mut put = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:12} {value}");
    };
    put("kind", &record.kind);
    put("fingerprint", &record.fingerprint.to_string());
    put("artifact", &record.artifact.digest.to_string());
    put("folder", path);
    for metric in &record.metrics {
        put("metric", &format!("{} {}", metric.name, number(metric.value)));
    }
    if is_whole {
        for (slot, digests) in inputs(record) {
            put("input", &format!("{slot}: {}", digests.join(", ")));
        }
        for (name, value) in parameters(record) {
            put("parameter", &format!("{name} = {value}"));
        }
        let attempts =
            if record.interruptions > 0 { format!(", {} interruptions", record.interruptions) } else { String::new() };
        put("computed", &format!("{} in {}{attempts}", record.times.started, duration(record.times.seconds)));
        put("run", &format!("{} of pipeline `{}`", record.run, record.pipeline));
        put("with", &format!("{} threads on {}", record.usage.threads, record.usage.device));
        let machine = &record.machine;
        put("machine", &format!("{}, {}, {}", machine.host, machine.platform, machine.processor));
        let build = &record.build;
        put("program", &format!("spdflow {} ({}), commit {}", build.version, build.profile, build.git_commit));
        put("built by", &format!("{}, Cargo.lock {}", build.rustc, build.cargo_lock.short()));
    }
    let mut table = Table::new(&["  file", "format", ">size", "digest", "what"]);
    for file in &record.artifact.outputs {
        let digest: Digest = file.digest;
        let path = format!("  {}", file.path);
        table.row([path, file.format.clone(), size(file.size_bytes), digest.short(), file.summary.clone()]);
    }
    text + &table.text()
}

fn inputs(record: &Record) -> Vec<(String, Vec<String>)> {
    let slots = record.preimage["inputs"].as_object().into_iter().flatten();
    let short = |digest: &serde_json::Value| digest.as_str().unwrap_or_default().chars().take(12).collect::<String>();
    slots.map(|(slot, digests)| (slot.clone(), digests.as_array().into_iter().flatten().map(short).collect())).collect()
}

/// Returns the parameters one per line, tables spelled out as paths.
pub(super) fn parameters(record: &Record) -> Vec<(String, String)> {
    fn collect(path: &str, value: &serde_json::Value, lines: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    collect(&path, value, lines);
                }
            }
            serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
                for (index, value) in items.iter().enumerate() {
                    collect(&format!("{path}[{index}]"), value, lines);
                }
            }
            _ => lines.push((path.to_owned(), value.to_string())),
        }
    }
    let mut lines = Vec::new();
    collect("", &record.preimage["params"], &mut lines);
    lines
}
