//! One module per command; each turns its arguments into output and an [`Exit`].

mod audit;
mod bundle;
mod cache;
mod check;
mod evidence;
mod export;
mod fmt;
mod graph;
mod import_config;
mod kinds;
mod lock;
mod log;
mod machine;
mod metrics;
mod new;
mod pipelines;
mod plan;
mod ranks;
mod run;
mod schema;
mod shell;
mod show;
mod sign;
mod status;
mod store;
mod trace;
mod watch;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use spdflow_engine::bundle::Arguments;
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::program::identity;
use spdflow_engine::spec::{self, Keeper, LoadOptions, Loaded};

use crate::args::{Command, OutputArgs, PipelineArgs, StoreArgs};
use crate::build_info::build_info;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::registry::registry;
use crate::shipped;

/// Does what the command line asks for.
pub(crate) fn dispatch(command: Command, style: &OutputArgs) -> Result<Exit, Failure> {
    match command {
        Command::Audit(args) => audit::audit(&args, style),
        Command::Sign(args) => sign::sign(&args, style),
        Command::Check(args) => check::check(&args, style),
        Command::Fmt(args) => fmt::fmt(&args, style),
        Command::New(args) => new::new(&args, style),
        Command::Graph(args) => graph::graph(&args, style),
        Command::Cache { command } => cache::cache(&command, style),
        Command::Lock(args) => lock::lock(&args, style),
        Command::Bundle(args) => bundle::bundle(&args, style),
        Command::Trace(args) => trace::trace(&args, style),
        Command::Export(args) => export::export(&args, style),
        Command::Schema => schema::schema(style),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::man(),
        Command::ImportConfig(args) => import_config::import_config(&args, style),
        Command::Kinds(args) => kinds::kinds(&args, style),
        Command::Pipelines => pipelines::pipelines(style),
        Command::Run(args) => run::run(&args, style),
        Command::Plan(args) => plan::plan(&args, style),
        Command::Status(args) => status::status(&args, style),
        Command::Log(args) => log::log(&args, style),
        Command::Show(args) => show::show(&args, style),
        Command::Metrics(args) => metrics::metrics(&args, style),
    }
}

/// Reads and checks the pipeline that a command names.
pub(crate) fn load(args: &PipelineArgs) -> Result<Pipeline, Failure> {
    load_from(args, &shipped::Files)
}

/// As [`load`], but takes the pipeline from the cache's index if that knows it; [`store::open_keeping`] puts it there.
pub(crate) fn load_kept(args: &PipelineArgs, store: &StoreArgs) -> Result<Loaded, Failure> {
    let program = identity(&build_info());
    let keeper = Keeper { cache: &store.cache, program: program.as_deref() };
    Ok(spec::load_kept(&shipped::path_of(&args.file)?, &options(args, &shipped::Files), &registry(), &keeper)?)
}

/// Reads and checks the pipeline that a command names, from files that `files` hands out.
fn load_from(args: &PipelineArgs, files: &dyn spec::Files) -> Result<Pipeline, Failure> {
    Ok(spec::load(&shipped::path_of(&args.file)?, &options(args, files), &registry())?)
}

/// Returns how a command line calls a pipeline: what besides its text decides which results it has.
fn called(pipeline: &PipelineArgs, store: &StoreArgs, stages: &[String]) -> Arguments {
    Arguments {
        profile: pipeline.profile.clone(),
        sweep: pipeline.sweep.clone(),
        set: pipeline.set.clone(),
        stages: stages.to_vec(),
        device: store.device.to_string(),
        ranks: store.ranks(),
    }
}

fn options<'f>(args: &PipelineArgs, files: &'f dyn spec::Files) -> LoadOptions<'f> {
    LoadOptions { profile: args.profile.clone(), set: args.set.clone(), sweep: args.sweep.clone(), files }
}

/// Prints a JSON document with the version that every document of spdflow carries.
pub(crate) fn print_json(mut document: serde_json::Value) {
    document["version"] = 1.into();
    output::data(&format!("{document:#}\n"));
}

/// Prints names with what they mean, in two columns.
fn print_pairs(pairs: &[(&str, &str)]) {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, meaning): &(&str, &str)| format!("{name:width$}  {meaning}").trim_end().to_owned() + "\n";
    output::data(&pairs.iter().map(line).collect::<String>());
}

/// Writes a file that must not be there yet; one that holds the same text already is left as it is.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let failed =
        |error: &io::Error| Failure::input(Diagnostic::new(format!("cannot write `{}`: {error}", path.display())));
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    match file {
        Ok(mut file) => file.write_all(text.as_bytes()).map_err(|error| failed(&error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_to_string(path).is_ok_and(|known| known == text) {
                return Ok(());
            }
            let message = format!("`{}` exists already and is not overwritten", path.display());
            Err(Failure::input(Diagnostic::new(message).hint("choose another name, or move it away")))
        }
        Err(error) => Err(failed(&error)),
    }
}

/// Replaces the file by one with this text; a reader sees the old one or the new one.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.to_owned();
    temporary.as_mut_os_string().push(format!(".{}.tmp", std::process::id()));
    fs::write(&temporary, text)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))
}
