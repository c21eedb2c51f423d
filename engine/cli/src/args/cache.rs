//! Arguments of `spdflow cache`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use spdflow_engine::size;

use super::{PullArgs, PushArgs};

/// `spdflow cache`.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List the results, or the runs.
    Ls(LsArgs),
    /// Show how much room each part takes.
    Du(CacheFolderArgs),
    /// Read every byte and report what is damaged; damaged files are put aside.
    Verify(CacheFolderArgs),
    /// Show what nobody needs, and with --yes delete it.
    ///
    /// Needed are the results of lock files, of pinned runs, of the last runs and of runs that are under way, and those
    /// that were made or used not long ago.
    Gc(GcArgs),
    /// Send results to a remote; what is there already is not sent again.
    Push(PushArgs),
    /// Take the results of pipelines from a remote; nothing is believed that does not have its digest.
    Pull(PullArgs),
    /// Make `gc` keep the results of a run.
    Pin(PinArgs),
    /// Let `gc` take the results of a run again.
    Unpin(PinArgs),
}

/// Which cache.
#[derive(Debug, Clone, Args)]
pub(crate) struct CacheFolderArgs {
    /// The cache folder.
    #[arg(long, value_name = "DIR", env = "SPDFLOW_CACHE", default_value = ".spdflow")]
    pub(crate) cache: PathBuf,
}

/// `spdflow cache ls`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LsArgs {
    /// The cache.
    #[command(flatten)]
    pub(crate) cache: CacheFolderArgs,
    /// List the runs instead of the results.
    #[arg(long)]
    pub(crate) runs: bool,
}

/// `spdflow cache gc`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GcArgs {
    /// Pipelines: what the lock files in their folders name is needed (default: those of `.` and `pipelines/`).
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The cache.
    #[command(flatten)]
    pub(crate) cache: CacheFolderArgs,
    /// Delete; without it nothing is deleted.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// What this lock file names is needed too; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub(crate) keep_lock: Vec<PathBuf>,
    /// The results of so many last runs are needed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) keep_runs: usize,
    /// Results that were made or used in the last so many days are needed.
    #[arg(long, value_name = "DAYS", default_value = "7", value_parser = parse_days)]
    pub(crate) keep_days: Duration,
    /// Delete no more results than it takes for the cache to be no larger: `20GiB`, `500MB`.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_size: Option<u64>,
}

/// `spdflow cache pin` and `unpin`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PinArgs {
    /// The runs, as `spdflow cache ls --runs` lists them (default: the last one).
    #[arg(value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// The cache.
    #[command(flatten)]
    pub(crate) cache: CacheFolderArgs,
}

fn parse_days(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        // Longer than anybody can wait, and still a duration.
        Ok(days) if (0.0..=1e6).contains(&days) => Ok(Duration::from_secs_f64(days * 86_400.0)),
        _ => Err("expected a number of days of at least 0".to_owned()),
    }
}

/// Returns a number of bytes; a number without a unit is one already.
fn parse_size(text: &str) -> Result<u64, String> {
    let bytes = text.parse().ok().or_else(|| size::parse(text));
    bytes.ok_or_else(|| "expected a size such as `20GiB` or `500MB`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_are_bytes() {
        assert_eq!(["20", "1.5KiB", "0B"].map(parse_size), [Ok(20), Ok(1536), Ok(0)]);
        assert!(["", "-1", "5 apples"].into_iter().all(|wrong| parse_size(wrong).is_err()));
    }
}
