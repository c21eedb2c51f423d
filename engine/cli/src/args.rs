//! The command line: every command, argument and default in one place.
//!
//! Doc comments here are the text of `--help`. Values are checked as far as their form goes; whether a pipeline, a
//! stage or a key exists is found out by the commands.

mod audit;
mod cache;
mod evidence;
mod machine;
mod remote;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use spdflow_engine::kind::{Device, NumericTarget};
use spdflow_engine::ranks::Place;
use spdflow_engine::run::Order;

pub(crate) use audit::{AuditArgs, SignArgs};
pub(crate) use cache::{CacheCommand, CacheFolderArgs, GcArgs, LsArgs, PinArgs};
pub(crate) use evidence::{BundleArgs, ExportArgs, ExportFormat, TraceArgs};
pub(crate) use machine::MachineArgs;
use machine::{all_cores, parse_threads};
pub(crate) use remote::{PullArgs, PushArgs, RemoteArgs};

/// Takes a neural network apart into its mechanisms, through cached, reproducible pipelines.
#[derive(Debug, Parser)]
#[command(name = "spdflow", version, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// How to speak.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0    done
  1    a bug of spdflow
  2    the command line or the pipeline is wrong
  3    something is out of date (status --exit-code) or not formatted (fmt --check)
  4    a stage failed
  5    some stages failed under --keep-going
  7    the cache cannot be used or is damaged
  10   the pipeline is not what its lock file says, or no longer what its results were made by (audit)
  11   evidence is incomplete (audit), or nothing is known of the file (trace)
  12   a result cannot be reproduced (audit)
  13   something is damaged or does not follow from what it says (audit)
  14   the log of runs or a signature is wrong (audit)
  15   something could not be made again (audit)
  16   somebody else has another result for the same key (audit)
  130  interrupted, after a checkpoint (143: terminated)";

/// How to speak: options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArgs {
    /// Say nothing but results and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; give it twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print one JSON document instead of text (`run`: one JSON object per line and event).
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub(crate) color: ColorChoice,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set or `TERM=dumb`.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline; what is unchanged comes from the cache.
    Run(Box<RunArgs>),
    /// Show what `run` would do to every stage, and why.
    Plan(PlanArgs),
    /// Show which stages are up to date.
    Status(StatusArgs),
    /// Check a pipeline without running anything.
    Check(CheckArgs),
    /// Bring pipeline files into the common look.
    Fmt(FmtArgs),
    /// Begin a pipeline of your own as a copy of a shipped one.
    New(NewArgs),
    /// Show which stage feeds which.
    Graph(GraphArgs),
    /// Print the logs of stages.
    Log(LogArgs),
    /// Show the artifacts of a pipeline: files, digests, parameters.
    Show(ShowArgs),
    /// Show the headline numbers of a pipeline's stages.
    Metrics(MetricsArgs),
    /// Write down which results a pipeline has, to keep beside a paper, or check that it still has them.
    Lock(LockArgs),
    /// Prove from the cache that results follow from their inputs, or find where they do not.
    Audit(AuditArgs),
    /// Sign the log of runs with an SSH key, so that others can tell that nothing in it was changed.
    Sign(SignArgs),
    /// Put a pipeline, its results and the evidence of how they were made into one file.
    Bundle(BundleArgs),
    /// Find out how a picture, a table or a checkpoint was made, by its bytes alone.
    Trace(TraceArgs),
    /// Write what is known of results as others keep provenance: in-toto and SLSA, RO-Crate, W3C PROV.
    Export(ExportArgs),
    /// Look into the cache, check it, free what nobody needs, share results.
    Cache {
        /// What to do with it.
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Make a pipeline from a configuration of the Python implementation.
    ImportConfig(ImportConfigArgs),
    /// List the stage kinds, or describe one.
    Kinds(KindsArgs),
    /// List the pipelines shipped with spdflow.
    Pipelines,
    /// Print a JSON Schema of pipeline files, for editors.
    Schema,
    /// Print what makes a shell complete spdflow's commands and options.
    Completions(CompletionsArgs),
    /// Print the manual page.
    Man,
}

/// Which pipeline, and with which changes.
#[derive(Debug, Clone, Args)]
pub(crate) struct PipelineArgs {
    /// A pipeline file, or the name of a shipped pipeline.
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// Set a value: `stage.decompose.params.steps=500`, or NAME=VALUE for `${NAME}` (TOML; a bare word is a text).
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Apply `[profile.NAME.set]` of the file.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Take the pipeline at every point of `[sweep.NAME]` of the file.
    #[arg(long, value_name = "NAME")]
    pub(crate) sweep: Option<String>,
}

/// Where results are: part of every command that makes them or finds them.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    /// The cache folder.
    #[arg(long, value_name = "DIR", env = "SPDFLOW_CACHE", default_value = ".spdflow")]
    pub(crate) cache: PathBuf,
    /// Where the results appear.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
    /// Where to compute: `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    pub(crate) device: Device,
    /// How many processes compute a stage together, where it can be divided; by default as many as were started.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ranks: Option<u16>,
}

impl StoreArgs {
    /// Returns what of where results are computed enters their fingerprints.
    pub(crate) fn target(&self) -> NumericTarget {
        NumericTarget::new(self.device, self.ranks())
    }

    /// Returns how many processes compute a stage together.
    pub(crate) fn ranks(&self) -> usize {
        let started =
            || Place::from_variables(|name| std::env::var(name).ok()).ok().flatten().map_or(1, |place| place.size);
        self.ranks.map_or_else(started, usize::from)
    }
}

/// Which part of a pipeline is run or planned.
#[derive(Debug, Clone, Args)]
pub(crate) struct SelectionArgs {
    /// Only these stages and what they need: `decompose`, `decompose[seed=0]`, or a glob.
    #[arg(value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// This stage, everything that depends on it, and what those need; may be repeated.
    #[arg(long, value_name = "STAGE")]
    pub(crate) downstream: Vec<String>,
    /// This stage alone: what it needs must be in the cache; may be repeated.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["stages", "downstream"])]
    pub(crate) only: Vec<String>,
    /// Run again although the cache has it: every stage, or with =STAGE only that one.
    #[arg(long, value_name = "STAGE", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub(crate) force: Vec<String>,
}

/// `spdflow run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Which part of it.
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// What it may use.
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Go on with what does not depend on a failed stage.
    #[arg(short, long)]
    pub(crate) keep_going: bool,
    /// Show what would be done and stop.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Run again whenever the pipeline file, its bases or the code of its commands change, until Ctrl-C.
    #[arg(short, long, conflicts_with = "dry_run")]
    pub(crate) watch: bool,
    /// Make nothing but what the lock file says; see `spdflow lock`.
    #[arg(long)]
    pub(crate) locked: bool,
    /// The lock file instead of the one beside the pipeline.
    #[arg(long, value_name = "PATH", requires = "locked")]
    pub(crate) lock_file: Option<PathBuf>,
    /// Results that are there are taken instead of computed, and those that are computed are sent.
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// Take results from the remote, and send none.
    #[arg(long)]
    pub(crate) remote_read_only: bool,
    /// Sign the log of runs with this SSH key when the run has made something; see `spdflow sign`.
    #[arg(long, value_name = "FILE", env = "SPDFLOW_SIGNING_KEY")]
    pub(crate) sign_key: Option<PathBuf>,
    /// Which of the stages that could begin is begun first; results do not depend on it.
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = OrderChoice::Urgent)]
    pub(crate) order: OrderChoice,
    /// How many seconds of work a kill may cost at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) checkpoint_seconds: u64,
}

/// Which stage is begun first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderChoice {
    /// The one with the most time behind it.
    Urgent,
    /// The last of the pipeline.
    Reversed,
}

impl From<OrderChoice> for Order {
    fn from(choice: OrderChoice) -> Self {
        match choice {
            OrderChoice::Urgent => Self::Urgent,
            OrderChoice::Reversed => Self::Reversed,
        }
    }
}

/// `spdflow plan`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlanArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Which part of it.
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// What a run may use, for the time it will take.
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// `spdflow status`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Only these stages and what they need.
    #[arg(value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// What a run may use, for the time it will take.
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Exit with 3 if anything is out of date.
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// `spdflow check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
}

/// `spdflow fmt`.
#[derive(Debug, Clone, Args)]
pub(crate) struct FmtArgs {
    /// Pipeline files.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Write nothing; exit with 3 if a file is not formatted.
    #[arg(long)]
    pub(crate) check: bool,
}

/// `spdflow new`.
#[derive(Debug, Clone, Args)]
pub(crate) struct NewArgs {
    /// What to call it; NAME.toml is written here.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The shipped pipeline to begin with.
    #[arg(long, value_name = "PIPELINE", default_value = "tms")]
    pub(crate) from: String,
}

/// `spdflow graph`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GraphArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// How to draw it.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = GraphFormat::Text)]
    pub(crate) format: GraphFormat,
}

/// How to draw a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// One line per instance with its inputs.
    Text,
    /// Graphviz.
    Dot,
    /// Mermaid, as GitHub shows it.
    Mermaid,
    /// One JSON document.
    Json,
}

/// `spdflow log`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Whose logs: `decompose`, `decompose[seed=0]`, or a glob; all of them without any.
    #[arg(value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Keep printing as running stages write, until all have ended.
    #[arg(short, long, conflicts_with = "run")]
    pub(crate) follow: bool,
    /// The logs of what this run made or used; `spdflow cache ls --runs` lists the runs.
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
}

/// `spdflow show`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShowArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Only these stages.
    #[arg(value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `spdflow metrics`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MetricsArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Only these stages.
    #[arg(value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Sort by a number or a parameter of the sweep, `-NAME` from the largest to the smallest.
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// Take together the instances that agree in these: axes, parameters of the sweep, `stage`.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) group_by: Vec<String>,
    /// Show these numbers instead of the headlines; any that a run has logged: `train/loss/total`, or its end.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
}

/// `spdflow lock`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LockArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Write nothing; exit with 10 if the pipeline is not what the lock file says.
    #[arg(long)]
    pub(crate) check: bool,
    /// The lock file instead of the one beside the pipeline.
    #[arg(long, value_name = "PATH")]
    pub(crate) lock_file: Option<PathBuf>,
}

/// `spdflow import-config`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportConfigArgs {
    /// The configuration: a YAML file, new or old.
    #[arg(value_name = "FILE.yaml")]
    pub(crate) file: PathBuf,
    /// Where to write the pipeline; it is printed where left out.
    #[arg(short, long, value_name = "FILE.toml")]
    pub(crate) output: Option<PathBuf>,
    /// Whose target it decomposes, as a shipped pipeline is called, where the configuration does not tell.
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<String>,
}

/// `spdflow kinds`.
#[derive(Debug, Clone, Args)]
pub(crate) struct KindsArgs {
    /// The kind to describe: its inputs and every parameter with type and default.
    #[arg(value_name = "KIND")]
    pub(crate) kind: Option<String>,
}

/// `spdflow completions`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

pub(crate) fn parse_device(text: &str) -> Result<Device, String> {
    match text.split_once(':') {
        None if text == "cpu" => Ok(Device::Cpu),
        None if text == "cuda" => Ok(Device::Cuda(0)),
        Some(("cuda", index)) => index
            .parse()
            .map(Device::Cuda)
            .map_err(|_| format!("expected a device number after `cuda:`, found `{index}`")),
        _ => Err("expected `cpu`, `cuda` or `cuda:N`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_argument_is_declared_consistently() {
        Cli::command().debug_assert();
    }

    #[test]
    fn force_takes_a_stage_only_behind_an_equals_sign() {
        let cli = Cli::parse_from(["spdflow", "run", "tms", "--force", "compare", "--force=decompose"]);
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.selection.force, ["*", "decompose"]);
        assert_eq!(run.selection.stages, ["compare"]);
    }
}
