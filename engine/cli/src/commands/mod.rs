//! One module per command; each turns its arguments into output and an [`Exit`].

mod cache;
mod check;
mod graph;
mod kinds;
mod lock;
mod log;
mod metrics;
mod pipelines;
mod plan;
mod run;
mod schema;
mod shell;
mod show;
mod status;
mod store;

use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::spec::{self, LoadOptions};

use crate::args::{Command, OutputArgs, PipelineArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::registry::registry;
use crate::shipped;

/// Does what the command line asks for.
pub(crate) fn dispatch(command: Command, style: &OutputArgs) -> Result<Exit, Failure> {
    match command {
        Command::Check(args) => check::check(&args, style),
        Command::Graph(args) => graph::graph(&args, style),
        Command::Cache { command } => cache::cache(&command, style),
        Command::Lock(args) => lock::lock(&args, style),
        Command::Schema => schema::schema(style),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::man(),
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
    let options = LoadOptions {
        profile: args.profile.clone(),
        set: args.set.clone(),
        sweep: args.sweep.clone(),
        files: &shipped::Files,
    };
    Ok(spec::load(&shipped::path_of(&args.file)?, &options, &registry())?)
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
