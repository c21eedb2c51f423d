//! What the command line names: a pipeline, a run, a bundle, or a file that some stage made.

use std::collections::{BTreeMap, BTreeSet};
use std::env::VarError;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Parser;
use spdflow_engine::audit::finding::{Fault, Finding};
use spdflow_engine::bundle::{ENDING, Problem, unpack};
use spdflow_engine::cache::{Cache, Digest};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::kind::NumericTarget;
use spdflow_engine::lock::Lock;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::plan::Scope;
use spdflow_engine::run::{Recipe, RecipeError};
use spdflow_engine::spec;
use spdflow_engine::trace::{Place, trace as find_trace};

use super::scratch::Scratch;
use crate::args::{AuditArgs, Cli, Command, PipelineArgs, RunArgs, StoreArgs, parse_device};
use crate::commands::{called, evidence, lock, store, trace};
use crate::failure::{Exit, Failure};
use crate::shipped;

/// What is audited.
pub(super) struct Found {
    /// It in words.
    pub(super) what: String,
    pub(super) pipeline: Pipeline,
    /// The arguments that make the pipeline's file this pipeline.
    pub(super) arguments: Vec<String>,
    pub(super) cache: Cache,
    /// Where its results appear.
    pub(super) out: PathBuf,
    pub(super) target: NumericTarget,
    pub(super) scope: Scope,
    pub(super) lock: Option<Lock>,
    /// Blobs of which only the digests are there.
    pub(super) absent: BTreeSet<Digest>,
    /// What was found on the way.
    pub(super) findings: Vec<Finding>,
}

/// Finds what the command line names.
pub(super) fn find(args: &AuditArgs, scratch: &Scratch) -> Result<Found, Failure> {
    let Some(subject) = &args.subject else { return last_run(args, scratch) };
    let path = Path::new(subject);
    if path.is_file() && is_bundle(path) {
        return bundle(args, path, scratch);
    }
    if path.extension().is_some_and(|extension| extension == "toml") || shipped::is_shipped(subject) {
        return pipeline(args, subject);
    }
    let cache = evidence::open(&args.store.cache)?;
    if cache.runs()?.iter().any(|run| run.id == *subject) {
        return run(args, cache, subject, &args.stages, scratch);
    }
    if path.is_file() {
        return file(args, cache, path, scratch);
    }
    let message =
        format!("`{subject}` is no pipeline, no run of the cache `{}` and no file", args.store.cache.display());
    Err(Failure::input(Diagnostic::new(message).hint("`spdflow cache ls --runs` lists the runs")))
}

/// Returns what `--against` names, as a remote is named.
pub(super) fn against(place: &str, scratch: &Scratch) -> Result<String, Failure> {
    let path = Path::new(place);
    if !(path.is_file() && is_bundle(path)) {
        return Ok(place.to_owned());
    }
    let unpacked = unpack(path, &scratch.folder().join("against"))?;
    if let Some(problem) = unpacked.problems.first() {
        let message = format!("the bundle `{place}` is not as it was made: {problem}");
        let hint = format!("`spdflow audit {place}` says more");
        return Err(Failure::new(Exit::Integrity, Diagnostic::new(message).hint(hint)));
    }
    Ok(unpacked.cache.display().to_string())
}

fn pipeline(args: &AuditArgs, file: &str) -> Result<Found, Failure> {
    let pipeline_args = PipelineArgs {
        file: file.to_owned(),
        set: args.set.clone(),
        profile: args.profile.clone(),
        sweep: args.sweep.clone(),
    };
    // Taken from the index of the cache if that knows it, but never put there.
    let pipeline = crate::commands::load_kept(&pipeline_args, &args.store)?.pipeline;
    let lock_path = lock::path(&pipeline_args, args.lock_file.as_deref());
    let lock = (args.lock_file.is_some() || lock_path.exists()).then(|| lock::read(&lock_path)).transpose()?;
    Ok(Found {
        what: format!("pipeline `{file}`"),
        arguments: called(&pipeline_args, &args.store, &[]).words(),
        cache: evidence::open(&args.store.cache)?,
        out: args.store.out.clone(),
        target: args.store.target(),
        scope: store::targets(&pipeline, &args.stages)?,
        lock,
        absent: BTreeSet::new(),
        findings: Vec::new(),
        pipeline,
    })
}

fn last_run(args: &AuditArgs, scratch: &Scratch) -> Result<Found, Failure> {
    let cache = evidence::open(&args.store.cache)?;
    let runs = cache.runs()?;
    // Runs that found everything in place have nothing to repeat.
    let last = runs.iter().rev().find(|run| !run.is_running && Recipe::read(&run.path).is_ok());
    let Some(last) = last.map(|run| run.id.clone()) else {
        let message = format!("no run of the cache `{}` can be audited", args.store.cache.display());
        return Err(Failure::input(Diagnostic::new(message).hint("name a pipeline: `spdflow audit PIPELINE`")));
    };
    run(args, cache, &last, &args.stages, scratch)
}

/// Returns a run's pipeline from the texts that it kept.
fn run(args: &AuditArgs, cache: Cache, id: &str, stages: &[String], scratch: &Scratch) -> Result<Found, Failure> {
    // A record may name any run.
    let known = cache.runs()?.into_iter().find(|run| run.id == id);
    let folder = known.ok_or_else(|| RecipeError::Missing { run: id.to_owned() })?.path;
    let recipe = Recipe::read(&folder)?;
    let file = recipe.lay_out(&folder, &scratch.folder().join("pipeline"))?;
    let words = ["spdflow".to_owned(), "run".to_owned(), file.display().to_string()];
    let parsed = Cli::try_parse_from(words.into_iter().chain(recipe.arguments.iter().cloned()));
    let Ok(Cli { command: Command::Run(then), .. }) = parsed else {
        let message =
            format!("the arguments of run `{id}` are none that this spdflow knows: {}", recipe.arguments.join(" "));
        return Err(Failure::new(Exit::Incomplete, Diagnostic::new(message)));
    };
    let RunArgs { pipeline: pipeline_args, selection, store: then, .. } = *then;
    let files = AsThen { variables: &recipe.variables };
    let pipeline = crate::commands::load_from(&pipeline_args, &files)?;
    let scope =
        if stages.is_empty() { store::scope(&pipeline, &selection)? } else { store::targets(&pipeline, stages)? };
    let store_then = StoreArgs { device: then.device, ranks: then.ranks, ..args.store.clone() };
    let lock = args.lock_file.as_deref().map(lock::read).transpose()?;
    Ok(Found {
        what: format!("run `{id}` of pipeline `{}`", pipeline.name),
        arguments: called(&pipeline_args, &store_then, &[]).words(),
        target: store_then.target(),
        out: args.store.out.clone(),
        // What the run did not make but rely on is audited as well.
        scope: Scope { only: false, force: Vec::new(), ..scope },
        cache,
        lock,
        absent: BTreeSet::new(),
        findings: Vec::new(),
        pipeline,
    })
}

/// Files as they lie, and variables as they were when a run began.
struct AsThen<'a> {
    variables: &'a BTreeMap<String, Option<String>>,
}

impl spec::Files for AsThen<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn variable(&self, name: &str) -> Result<String, VarError> {
        match self.variables.get(name) {
            Some(value) => value.clone().ok_or(VarError::NotPresent),
            None => std::env::var(name),
        }
    }
}

/// Returns the run that made a file, with the stage that did.
fn file(args: &AuditArgs, cache: Cache, path: &Path, scratch: &Scratch) -> Result<Found, Failure> {
    let shown = path.display();
    let sums = trace::sums(path)?;
    let traced = find_trace(&cache, &sums, &args.store.out)?;
    // Of the results that hold these bytes, the last one that can be repeated.
    let made = traced.places.iter().rev().find_map(|place| match place {
        Place::Output { record, output, .. } => Some((record, output)),
        _ => None,
    });
    if let Some((record, output)) = made {
        let what = format!("`{shown}`, which is `{}` of `{}`", output.path, record.instance);
        let stages = [record.instance.clone()];
        let (id, of_run) = (record.run.clone(), args.stages.is_empty().then_some(&stages[..]));
        let found = run(args, cache, &id, of_run.unwrap_or(&args.stages), scratch)?;
        return Ok(Found { what: format!("{what}, by {}", found.what), ..found });
    }
    let of_run = traced.places.iter().find_map(|place| match place {
        Place::Run { run, .. } => Some(run.clone()),
        _ => None,
    });
    if let Some(id) = of_run {
        return run(args, cache, &id, &args.stages, scratch);
    }
    let message = format!(
        "no stage of a run in the cache `{}` has made a file with the bytes of `{shown}`",
        args.store.cache.display()
    );
    let hint = format!("`spdflow trace {shown}` says what is nearest");
    Err(Failure::new(Exit::Incomplete, Diagnostic::new(message).hint(hint)))
}

/// Returns what a bundle holds, which is all that is believed of it: its own cache and its own texts.
fn bundle(args: &AuditArgs, file: &Path, scratch: &Scratch) -> Result<Found, Failure> {
    let unpacked = unpack(file, &scratch.folder().join("bundle"))?;
    let then = &unpacked.arguments;
    let pipeline_args = PipelineArgs {
        file: unpacked.pipeline.display().to_string(),
        set: then.set.clone(),
        profile: then.profile.clone(),
        sweep: then.sweep.clone(),
    };
    let pipeline = crate::commands::load_from(&pipeline_args, &AsThen { variables: &unpacked.variables })?;
    let stages = if args.stages.is_empty() { &then.stages } else { &args.stages };
    let device = parse_device(&then.device).map_err(|expected| {
        let message = format!("`{}` was made on the device `{}`: {expected}", file.display(), then.device);
        Failure::new(Exit::Integrity, Diagnostic::new(message))
    })?;
    let ranks = u16::try_from(then.ranks).ok();
    let store_then = StoreArgs { device, ranks, ..args.store.clone() };
    let lock = args.lock_file.as_deref().unwrap_or(&unpacked.lock);
    Ok(Found {
        what: format!("bundle `{}` of pipeline `{}`", file.display(), unpacked.name),
        arguments: called(&pipeline_args, &store_then, &[]).words(),
        target: store_then.target(),
        // A bundle has no results in place; those of this folder are not its own.
        out: scratch.folder().join("bundle-out"),
        scope: store::targets(&pipeline, stages)?,
        cache: evidence::open(&unpacked.cache)?,
        lock: Some(lock::read(lock)?),
        absent: unpacked.left_out.iter().map(|file| file.blake3).collect(),
        findings: unpacked.problems.iter().map(problem).collect(),
        pipeline,
    })
}

/// Returns what is found of a file that is not as the bundle says. Blobs and records are looked at for themselves, by whoever
/// needs them.
fn problem(problem: &Problem) -> Finding {
    let (fault, path) = match problem {
        Problem::Missing { path } => (Fault::Missing, path.as_str()),
        Problem::Extra { path }
        | Problem::Twice { path }
        | Problem::Size { path, .. }
        | Problem::Changed { path, .. } => (Fault::Edited, path.as_str()),
        Problem::Trailing => (Fault::Edited, ""),
    };
    let is_seen_to = path.starts_with("cache/blobs/") || path.starts_with("cache/records/");
    Finding::new(if is_seen_to { Fault::Note } else { fault }, problem.to_string())
}

/// Returns whether a file begins as Zstandard does, which nothing that a stage makes does.
fn is_bundle(path: &Path) -> bool {
    let mut head = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == [0x28, 0xb5, 0x2f, 0xfd] || path.to_string_lossy().ends_with(ENDING)
}

impl From<RecipeError> for Failure {
    fn from(error: RecipeError) -> Self {
        let exit = match error {
            RecipeError::Missing { .. } | RecipeError::NotKept { .. } => Exit::Incomplete,
            RecipeError::Damaged { .. } | RecipeError::Changed { .. } => Exit::Integrity,
            RecipeError::Io { .. } => Exit::Cache,
        };
        let hint = match error {
            RecipeError::Missing { .. } => Some("audit the pipeline itself: `spdflow audit PIPELINE`"),
            _ => None,
        };
        Self::new(exit, Diagnostic::new(error.to_string()).hint_if_any(hint))
    }
}
