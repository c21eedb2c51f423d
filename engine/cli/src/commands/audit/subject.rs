//! What the command line names: a pipeline, a run, a bundle, or a file that some stage made.

use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};

use clap::Parser;
use spdflow_engine::cache::Cache;
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::kind::NumericTarget;
use spdflow_engine::lock::Lock;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::plan::Scope;
use spdflow_engine::run::{Recipe, RecipeError};
use spdflow_engine::spec;

use super::scratch::Scratch;
use crate::args::{AuditArgs, Cli, Command, PipelineArgs, RunArgs, StoreArgs};
use crate::commands::{lock, store};
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
}

/// Finds what the command line names.
pub(super) fn find(args: &AuditArgs, scratch: &Scratch) -> Result<Found, Failure> {
    let Some(subject) = &args.subject else { return last_run(args, scratch) };
    let path = Path::new(subject);
    if path.extension().is_some_and(|extension| extension == "toml") || shipped::is_shipped(subject) {
        return pipeline(args, subject);
    }
    let cache = open(&args.store.cache)?;
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
    let _ = scratch;
    Ok(place.to_owned())
}

fn open(folder: &Path) -> Result<Cache, Failure> {
    Cache::open_existing(folder).map_err(|error| {
        let failure = Failure::from(error);
        if folder.join("VERSION").exists() {
            return failure;
        }
        let message = format!("there is no cache `{}`, so there is nothing to audit", folder.display());
        Failure::input(Diagnostic::new(message).hint("`--cache DIR` or SPDFLOW_CACHE names another one"))
    })
}

fn pipeline(args: &AuditArgs, file: &str) -> Result<Found, Failure> {
    let pipeline_args = PipelineArgs {
        file: file.to_owned(),
        set: args.set.clone(),
        profile: args.profile.clone(),
        sweep: args.sweep.clone(),
    };
    let pipeline = crate::commands::load(&pipeline_args)?;
    let lock_path = lock::path(&pipeline_args, args.lock_file.as_deref());
    let lock = (args.lock_file.is_some() || lock_path.exists()).then(|| lock::read(&lock_path)).transpose()?;
    Ok(Found {
        what: format!("pipeline `{file}`"),
        arguments: arguments(&pipeline_args, &args.store),
        cache: open(&args.store.cache)?,
        out: args.store.out.clone(),
        target: args.store.target(),
        scope: store::targets(&pipeline, &args.stages)?,
        lock,
        pipeline,
    })
}

/// Returns the arguments of `run` by which a pipeline's file is this pipeline, computed there.
fn arguments(pipeline: &PipelineArgs, store: &StoreArgs) -> Vec<String> {
    let PipelineArgs { set, profile, sweep, .. } = pipeline;
    let mut words = Vec::new();
    words.extend(profile.iter().map(|name| format!("--profile={name}")));
    words.extend(sweep.iter().map(|name| format!("--sweep={name}")));
    words.extend(set.iter().map(|pair| format!("--set={pair}")));
    words.push(format!("--device={}", store.device));
    let ranks = store.ranks();
    words.extend((ranks > 1).then(|| format!("--ranks={ranks}")));
    words
}

fn last_run(args: &AuditArgs, scratch: &Scratch) -> Result<Found, Failure> {
    let cache = open(&args.store.cache)?;
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
    let folder = cache.root().join("runs").join(id);
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
    let files = AsThen { recipe: &recipe };
    let pipeline = crate::commands::load_from(&pipeline_args, &files)?;
    let scope =
        if stages.is_empty() { store::scope(&pipeline, &selection)? } else { store::targets(&pipeline, stages)? };
    let store_then = StoreArgs { device: then.device, ranks: then.ranks, ..args.store.clone() };
    let lock = args.lock_file.as_deref().map(lock::read).transpose()?;
    Ok(Found {
        what: format!("run `{id}` of pipeline `{}`", pipeline.name),
        arguments: arguments(&pipeline_args, &store_then),
        target: store_then.target(),
        out: args.store.out.clone(),
        // What the run did not make but rely on is audited as well.
        scope: Scope { only: false, force: Vec::new(), ..scope },
        cache,
        lock,
        pipeline,
    })
}

/// Files as they lie, and variables as they were when a run began.
struct AsThen<'a> {
    recipe: &'a Recipe,
}

impl spec::Files for AsThen<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn variable(&self, name: &str) -> Result<String, VarError> {
        match self.recipe.variables.get(name) {
            Some(value) => value.clone().ok_or(VarError::NotPresent),
            None => std::env::var(name),
        }
    }
}

fn file(args: &AuditArgs, cache: Cache, path: &Path, scratch: &Scratch) -> Result<Found, Failure> {
    let _ = (args, cache, path, scratch);
    Err(Failure::input(Diagnostic::new("TEMP")))
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
