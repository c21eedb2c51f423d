//! Arguments of the commands that carry evidence out of a cache: `bundle`, `trace`, `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{CacheFolderArgs, PipelineArgs, StoreArgs};

/// `spdflow bundle`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BundleArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Only these stages and what they need.
    #[arg(value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The bundle (default: NAME.spdflow.tar.zst in the present folder).
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Of the files of results, put in only the digests.
    #[arg(long)]
    pub(crate) digests_only: bool,
    /// Replace a file that is there already.
    #[arg(long)]
    pub(crate) force: bool,
}

/// `spdflow trace`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// A picture, a table, a checkpoint: whatever spdflow may have made, under whatever name.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The cache.
    #[command(flatten)]
    pub(crate) cache: CacheFolderArgs,
    /// Where the results appear.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
}

/// `spdflow export`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// The pipeline.
    #[command(flatten)]
    pub(crate) pipeline: PipelineArgs,
    /// Only these stages and what they need.
    #[arg(value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// In which form.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: ExportFormat,
    /// Where to write it; a `ro-crate` is a folder (default: NAME.ro-crate), the others are printed where left out.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// The licence of the results, which a `ro-crate` has to name: an address, or a sentence.
    #[arg(long, value_name = "TEXT", default_value = "No licence is stated")]
    pub(crate) license: String,
}

/// A form in which others keep provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// In-toto statements with SLSA provenance, one for each result: JSON Lines.
    Slsa,
    /// A folder with the pipeline, the results, and a description as Workflow Run RO-Crate.
    RoCrate,
    /// W3C PROV, as PROV-JSON.
    Prov,
}
