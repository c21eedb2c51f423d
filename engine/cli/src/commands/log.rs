//! `spdflow log`: what stages wrote to their logs, the last time they ran or while they run.
//!
//! The log of a finished stage is a blob that its record names; that of one which runs or was cut short lies in its
//! work folder. `log/follow.rs` waits for more.

mod follow;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};

use spdflow_engine::cache::{Cache, Digest, RunInfo};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::kind::NumericTarget;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::suggest::listed;
use spdflow_engine::workspace::Workspace;

use super::store;
use crate::args::{LogArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::text::warning;

/// A stage whose log is asked for.
struct Wanted {
    instance: String,
    /// Its key, once that is known.
    fingerprint: Option<Digest>,
    /// Why there may be no log.
    why: String,
}

/// Prints the logs.
pub(super) fn log(args: &LogArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let pipeline = &loaded.pipeline;
    let chosen = pipeline.select(&args.stages).map_err(Failure::input)?;
    let cache = store::open_keeping(&args.store, &loaded)?;
    let wanted = match &args.run {
        Some(run) => of_run(&cache, run, pipeline, &chosen)?,
        None => of_pipeline(&cache, args, pipeline, &chosen, &args.store.target())?,
    };
    if style.json {
        return print_json(&cache, &wanted);
    }
    let mut printer = Printer { is_prefixed: wanted.len() > 1 };
    if args.follow {
        return follow::follow(&cache, &pipeline.name, wanted, &mut printer);
    }
    print_all(&cache, &wanted, &mut printer, style)
}

/// Returns the chosen stages with the keys they have now.
fn of_pipeline(
    cache: &Cache,
    args: &LogArgs,
    pipeline: &Pipeline,
    chosen: &[usize],
    target: &NumericTarget,
) -> Result<Vec<Wanted>, Failure> {
    let scope = store::targets(pipeline, &args.stages)?;
    let workspace = Workspace::new(cache, &args.store.out, pipeline);
    let plan = store::make_plan(pipeline, &workspace, &scope, target, true)?;
    let steps = plan.steps.into_iter().filter(|step| chosen.binary_search(&step.index).is_ok());
    Ok(steps
        .map(|step| Wanted {
            instance: pipeline.instances[step.index].id.to_string(),
            fingerprint: step.fingerprint,
            why: if step.fingerprint.is_some() { step.why } else { format!("it {}", step.why) },
        })
        .collect())
}

/// Returns the chosen stages with the keys they had in a run.
fn of_run(cache: &Cache, id: &str, pipeline: &Pipeline, chosen: &[usize]) -> Result<Vec<Wanted>, Failure> {
    let runs = cache.runs()?;
    let Some(run) = runs.iter().find(|run| run.id == id) else {
        let message = format!("the cache has no run `{id}`");
        return Err(Failure::input(Diagnostic::new(message).hint("`spdflow cache ls --runs` lists them")));
    };
    let known = keys_of(run);
    let wanted = chosen.iter().map(|index| {
        let instance = pipeline.instances[*index].id.to_string();
        let fingerprint = known.get(&instance).copied();
        Wanted { instance, fingerprint, why: format!("it did not run in run `{id}`") }
    });
    Ok(wanted.collect())
}

/// Returns the keys of the instances of a run, as far as it came to know them.
fn keys_of(run: &RunInfo) -> BTreeMap<String, Digest> {
    let planned = follow::planned(&run.path).into_iter().filter_map(|step| Some((step.instance, step.fingerprint?)));
    let journal = fs::read_to_string(run.path.join("journal.jsonl")).unwrap_or_default();
    let told = journal.lines().filter_map(follow::Told::parse);
    // What the plan could not know yet comes later.
    planned.chain(told.filter_map(|told| Some((told.instance?, told.fingerprint?)))).collect()
}

fn print_all(cache: &Cache, wanted: &[Wanted], printer: &mut Printer, style: &OutputArgs) -> Result<Exit, Failure> {
    let (mut without, mut silent) = (Vec::new(), Vec::new());
    for stage in wanted {
        match stage.fingerprint.map(|fingerprint| whole_log(cache, &fingerprint)).transpose()?.flatten() {
            Some(text) if text.is_empty() => silent.push(stage),
            Some(text) => printer.print(&stage.instance, &text)?,
            None => without.push(stage),
        }
    }
    if without.len() == wanted.len() {
        return Err(Failure::input(no_log(&without)));
    }
    if !style.quiet {
        if let [only] = wanted
            && !silent.is_empty()
        {
            output::message(&warning(&format!("stage `{}` wrote nothing to its log", only.instance)));
        }
        if !without.is_empty() {
            output::message(&warning(&without_log(&without)));
        }
    }
    Ok(Exit::Done)
}

/// Returns the warning for stages without a log beside others that have one.
fn without_log(stages: &[&Wanted]) -> String {
    format!("without a log: {}", listed(stages.iter().map(|stage| stage.instance.as_str())))
}

/// Returns the message for stages of which none has a log.
fn no_log(stages: &[&Wanted]) -> Diagnostic {
    let message = match stages {
        [only] if only.fingerprint.is_none() => format!("stage `{}` has no log yet: {}", only.instance, only.why),
        [only] => format!("stage `{}` has no log: {}", only.instance, only.why),
        many => format!("none of {} stages has a log yet", many.len()),
    };
    match stages {
        [only] if only.fingerprint.is_none() => Diagnostic::new(message),
        _ => Diagnostic::new(message).hint("`spdflow run` writes one"),
    }
}

fn print_json(cache: &Cache, wanted: &[Wanted]) -> Result<Exit, Failure> {
    let mut documents = Vec::new();
    for stage in wanted {
        let text = stage.fingerprint.map(|fingerprint| whole_log(cache, &fingerprint)).transpose()?.flatten();
        let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
        documents.push((stage, text));
    }
    let stages: Vec<_> = documents
        .iter()
        .map(
            |(stage, log)| serde_json::json!({ "stage": stage.instance, "fingerprint": stage.fingerprint, "log": log }),
        )
        .collect();
    let mut document = serde_json::json!({ "stages": stages });
    // As it was when a log belonged to one stage.
    if let [(stage, log)] = documents.as_slice() {
        let Some(fingerprint) = stage.fingerprint else { return Err(Failure::input(no_log(&[stage]))) };
        document["stage"] = stage.instance.as_str().into();
        document["fingerprint"] = fingerprint.to_string().into();
        document["log"] = log.as_deref().unwrap_or_default().into();
    }
    super::print_json(document);
    Ok(Exit::Done)
}

/// Returns the log of the attempt that is under way, else of the finished stage, else of an attempt that was cut short.
fn whole_log(cache: &Cache, fingerprint: &Digest) -> Result<Option<Vec<u8>>, Failure> {
    let work_log = || fs::read(cache.work_folder(fingerprint).join("log")).ok();
    if cache.running(fingerprint)?.is_some()
        && let Some(text) = work_log()
    {
        return Ok(Some(text));
    }
    match recorded_log(cache, fingerprint)? {
        Some(text) => Ok(Some(text)),
        None => Ok(work_log()),
    }
}

/// Returns the log of the finished stage; it is empty if the stage wrote none.
fn recorded_log(cache: &Cache, fingerprint: &Digest) -> Result<Option<Vec<u8>>, Failure> {
    let Some(record) = store::record(cache, Some(*fingerprint))? else { return Ok(None) };
    let Some(digest) = record.log else { return Ok(Some(Vec::new())) };
    Ok(cache.read_blob(&digest)?.ok())
}

/// Prints logs, each line behind the name of its stage if there are several.
struct Printer {
    is_prefixed: bool,
}

impl Printer {
    /// Prints lines of a stage.
    fn print(&mut self, instance: &str, text: &[u8]) -> Result<(), Failure> {
        if !self.is_prefixed {
            return print(text);
        }
        let mut lines = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            lines.extend_from_slice(instance.as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(line);
            // The next line belongs to somebody else.
            if !line.ends_with(b"\n") {
                lines.push(b'\n');
            }
        }
        print(&lines)
    }
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(i32::from(Exit::Done.code())),
        Err(error) => Err(Failure::new(Exit::Bug, Diagnostic::new(format!("cannot write to stdout: {error}")))),
        Ok(()) => Ok(()),
    }
}
