//! Arguments of the commands that speak to remotes.

use clap::Args;
use spdflow_engine::kind::{Device, NumericTarget};

use super::{CacheFolderArgs, PipelineArgs, parse_device};

/// Which remote.
#[derive(Debug, Clone, Args)]
pub(crate) struct RemoteArgs {
    /// Where results are shared: a folder, `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `https://…`.
    #[arg(long, value_name = "URL", env = "SPDFLOW_REMOTE")]
    remote: Option<String>,
}

impl RemoteArgs {
    /// Returns the URL, if there is one; an empty variable is one that is not set.
    pub(crate) fn url(&self) -> Option<&str> {
        self.remote.as_deref().filter(|url| !url.is_empty())
    }
}

/// Whose results are sent or taken, and between which places.
#[derive(Debug, Clone, Args)]
pub(crate) struct TransferArgs {
    /// Set a value in each pipeline, as for `run`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Apply `[profile.NAME.set]` of each file.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Take the pipelines at every point of `[sweep.NAME]` of their files.
    #[arg(long, value_name = "NAME")]
    sweep: Option<String>,
    /// For which device the results were computed: `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    device: Device,
    /// By how many processes those stages were computed that can be divided.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    ranks: u16,
    /// The cache.
    #[command(flatten)]
    pub(crate) cache: CacheFolderArgs,
    /// The remote.
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// Carry nothing over, and say what would be.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

impl TransferArgs {
    /// Returns what of where the results were computed enters their fingerprints.
    pub(crate) fn target(&self) -> NumericTarget {
        NumericTarget::new(self.device, self.ranks.into())
    }

    /// Returns how to read one of the pipelines.
    pub(crate) fn pipeline(&self, file: &str) -> PipelineArgs {
        PipelineArgs {
            file: file.to_owned(),
            set: self.set.clone(),
            profile: self.profile.clone(),
            sweep: self.sweep.clone(),
        }
    }
}

/// `spdflow cache push`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PushArgs {
    /// Pipelines whose results are sent, as far as the cache has them (default: the results of the last run).
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Send everything that the cache has.
    #[arg(long, conflicts_with = "files")]
    pub(crate) all: bool,
    /// Send also what is there already, to mend what was damaged there.
    #[arg(long)]
    pub(crate) again: bool,
    /// The rest.
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}

/// `spdflow cache pull`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PullArgs {
    /// Pipelines whose results are taken, as far as the cache lacks them.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
}
