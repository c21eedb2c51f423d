//! `spdflow run`: brings every stage's result in place.

use std::sync::Arc;
use std::time::Duration;

use spdflow_engine::cache::remote::Remote;
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::event::{Listener, Outcome, RunStatus};
use spdflow_engine::executor::Executor;
use spdflow_engine::kind::StopFlag;
use spdflow_engine::lock::Lock;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::plan::Scope;
use spdflow_engine::run::{RemoteOptions, RunOptions, RunSummary, run as run_pipeline};
use spdflow_engine::spec::Loaded;
use spdflow_engine::workspace::Workspace;

use super::{lock, machine, ranks, sign, store};
use crate::args::{OutputArgs, RunArgs, SelectionArgs};
use crate::build_info::build_info;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::human::HumanReport;
use crate::report::json::JsonReport;
use crate::report::table::Table;
use crate::report::text::{Color, duration, line, metric};
use crate::signals::Signals;

/// More rows than this, and the closing table leaves out what was cached.
const TABLE_ROWS: usize = 40;

/// Runs the pipeline, or shows what would be done.
pub(super) fn run(args: &RunArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let place = ranks::place(args)?;
    if args.watch {
        return super::watch::watch(args, style);
    }
    if args.dry_run {
        // Rank 0 shows it for all.
        if place.is_some_and(|place| place.rank > 0) {
            return Ok(Exit::Done);
        }
        let loaded = super::load_kept(&args.pipeline, &args.store)?;
        let pipeline = &loaded.pipeline;
        let scope = store::scope(pipeline, &args.selection)?;
        let cache = store::open_keeping(&args.store, &loaded)?;
        let workspace = Workspace::new(&cache, &args.store.out, pipeline);
        let capacity = machine::capacity(&args.machine, pipeline)?;
        return super::plan::print(pipeline, &workspace, &scope, &args.store.target(), &capacity, style);
    }
    let signals = listen()?;
    if let Some(place) = place.as_ref().filter(|place| place.rank > 0) {
        return ranks::help(place, args, style, &signals);
    }
    // Before anything can fail: the others wait to hear of it.
    let executor = ranks::executor(place.as_ref(), args, style, &signals)?;
    let loaded = super::load_kept(&args.pipeline, &args.store)?;
    let summary = once(args, style, &loaded, &signals, signals.stop.clone(), &*executor)?;
    // Taking thousands of stages apart costs as much as looking at them, and the program ends.
    std::mem::forget(loaded);
    Ok(exit(&summary, &signals))
}

/// Starts to listen to signals.
pub(super) fn listen() -> Result<Signals, Failure> {
    Signals::listen()
        .map_err(|error| Failure::new(Exit::Bug, Diagnostic::new(format!("cannot listen to signals: {error}"))))
}

/// Runs the pipeline until it is done or `stop` is raised, and tells what happens and how it ended.
pub(super) fn once(
    args: &RunArgs,
    style: &OutputArgs,
    loaded: &Loaded,
    signals: &Signals,
    stop: StopFlag,
    executor: &dyn Executor,
) -> Result<RunSummary, Failure> {
    let pipeline = &loaded.pipeline;
    let scope = store::scope(pipeline, &args.selection)?;
    let cache = store::open_keeping(&args.store, loaded)?;
    let workspace = Workspace::new(&cache, &args.store.out, pipeline);
    let locked = args.locked.then(|| locked(args, pipeline, &workspace, &scope)).transpose()?;
    let remote = args.remote.url().map(Remote::open).transpose()?.map(Arc::new);
    let remote = remote.map(|remote| RemoteOptions { remote, is_read_only: args.remote_read_only });
    let options = RunOptions {
        scope,
        jobs: args.machine.jobs,
        order: args.order.into(),
        threads: args.machine.threads,
        memory_bytes: args.machine.memory,
        gpus: machine::gpus(&args.machine)?,
        keep_going: args.keep_going,
        device: args.store.device,
        ranks: args.store.ranks(),
        checkpoint_every: Duration::from_secs(args.checkpoint_seconds),
        locked,
        remote,
        arguments: arguments(args),
        stop,
        build: build_info(),
    };
    let listener: Box<dyn Listener> =
        if style.json { Box::new(JsonReport) } else { Box::new(HumanReport::new(style, signals.stop.clone())) };
    let summary = run_pipeline(pipeline, &workspace, &options, executor, &*listener)?;
    // A run that found everything in place made nothing to sign.
    if let Some(key) = args.sign_key.as_deref().filter(|_| summary.is_logged) {
        sign::sign_run(&cache, Some(&summary.run), key)?;
    }
    if !style.json && !style.quiet {
        output::data(&table(pipeline, &summary, style.verbose > 0));
        output::message(&(closing_line(&summary) + "\n"));
    }
    Ok(summary)
}

/// Returns the arguments by which a repetition of the run does the same from nothing: neither is anything forced then,
/// nor known.
fn arguments(args: &RunArgs) -> Vec<String> {
    let SelectionArgs { stages, downstream, only, .. } = &args.selection;
    let mut words = super::called(&args.pipeline, &args.store, &[]).words();
    words.extend(downstream.iter().map(|stage| format!("--downstream={stage}")));
    words.extend(stages.iter().chain(only).cloned());
    words
}

/// Returns the lock file that the run must keep to.
fn locked(args: &RunArgs, pipeline: &Pipeline, workspace: &Workspace<'_>, scope: &Scope) -> Result<Lock, Failure> {
    let path = lock::path(&args.pipeline, args.lock_file.as_deref());
    let locked = lock::read(&path)?;
    let plan = store::make_plan(pipeline, workspace, scope, &args.store.target(), true)?;
    let drift = locked.drift(pipeline, &plan, args.selection.stages.is_empty());
    if drift.is_empty() { Ok(locked) } else { Err(lock::departs(&path, &drift)) }
}

fn exit(summary: &RunSummary, signals: &Signals) -> Exit {
    match summary.status {
        RunStatus::Done => Exit::Done,
        RunStatus::Interrupted => signals.exit(),
        _ if summary.failures.iter().any(|failure| failure.is_bug) => Exit::Bug,
        RunStatus::Failed => Exit::StageFailed,
        RunStatus::SomeFailed => Exit::SomeFailed,
    }
}

fn table(pipeline: &Pipeline, summary: &RunSummary, is_whole: bool) -> String {
    let mut table = Table::new(&["stage", "outcome", ">time", "result", "artifact"]);
    let is_short = summary.results.len() > TABLE_ROWS && !is_whole;
    let mut left_out = 0;
    for result in &summary.results {
        if is_short && result.outcome == Outcome::Cached {
            left_out += 1;
            continue;
        }
        let time = if result.seconds > 0.0 { duration(result.seconds) } else { String::new() };
        table.row([
            pipeline.instances[result.index].id.to_string(),
            result.outcome.word().to_owned(),
            time,
            result.headline.as_ref().map(metric).unwrap_or_default(),
            result.artifact.map(|digest| digest.short()).unwrap_or_default(),
        ]);
    }
    match left_out {
        0 => table.text(),
        all if all == summary.results.len() => String::new(),
        some => format!("{}and {some} cached\n", table.text()),
    }
}

fn closing_line(summary: &RunSummary) -> String {
    let count = |outcome| summary.results.iter().filter(|result| result.outcome == outcome).count();
    let all = [
        Outcome::Ran,
        Outcome::Resumed,
        Outcome::Cutoff,
        Outcome::Cached,
        Outcome::Failed,
        Outcome::Interrupted,
        Outcome::Skipped,
    ];
    let counts: Vec<_> = all
        .into_iter()
        .filter(|outcome| count(*outcome) > 0)
        .map(|outcome| format!("{} {}", count(outcome), outcome.word()))
        .collect();
    let total = summary.results.len();
    let stages = if total == 1 { "stage" } else { "stages" };
    let counts = if count(Outcome::Cached) == total && total > 0 {
        "everything is cached".to_owned()
    } else {
        counts.join(", ")
    };
    let (verb, color) = match summary.status {
        RunStatus::Done => ("Finished", Color::Green),
        RunStatus::Failed | RunStatus::SomeFailed => ("Failed", Color::Red),
        RunStatus::Interrupted => ("Interrupted", Color::Yellow),
    };
    line(verb, color, &format!("{total} {stages} in {}: {counts}", duration(summary.seconds)))
}
