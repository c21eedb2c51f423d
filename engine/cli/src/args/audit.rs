//! Arguments of `spdflow audit` and `spdflow sign`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use spdflow_engine::audit::Variation;
use spdflow_engine::spec::duration;

use super::{CacheFolderArgs, StoreArgs, all_cores, parse_threads};

/// `spdflow audit`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditArgs {
    /// What to audit: a pipeline file or the name of a shipped one, a run, a bundle, or any file that a stage made; the
    /// last run where left out.
    #[arg(value_name = "SUBJECT")]
    pub(crate) subject: Option<String>,
    /// Only these stages and what they need.
    #[arg(value_name = "STAGE")]
    pub(crate) stages: Vec<String>,
    /// Set a value of the pipeline, as for `run`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Apply `[profile.NAME.set]` of the pipeline.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Take the pipeline at every point of `[sweep.NAME]`.
    #[arg(long, value_name = "NAME")]
    pub(crate) sweep: Option<String>,
    /// The cache and the results.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Up to which level: 0 completeness, 1 integrity, 2 derivation, 3 reproduction, 4 authenticity, 5 challenge.
    ///
    /// By default 2, or what the other options ask for: 3 with --vary, --sample or --budget, 4 with --signers. --against
    /// compares at any level; level 5 is everything.
    #[arg(short, long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=5))]
    pub(crate) level: Option<u8>,
    /// What to vary when results are made again.
    #[arg(long, value_enum, value_name = "WHAT,…", value_delimiter = ',')]
    pub(crate) vary: Vec<VariationChoice>,
    /// Make only this share of the results again, such as `20%`: those that matter most, one of every kind at least.
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub(crate) sample: Option<f64>,
    /// Make no more results again than take about this long, such as `30m`; one of every kind at least.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) budget: Option<Duration>,
    /// Make nothing again: of level 3 and above, check what can be checked without.
    #[arg(long, conflicts_with_all = ["vary", "sample", "budget"])]
    pub(crate) no_run: bool,
    /// Ask for the same results there: a remote, the folder of another cache, or a bundle.
    #[arg(long, value_name = "PLACE")]
    pub(crate) against: Option<String>,
    /// Who may sign: a file as `ssh-keygen -Y verify` reads it; without it, any key is somebody's.
    #[arg(long, value_name = "FILE", env = "SPDFLOW_SIGNERS")]
    pub(crate) signers: Option<PathBuf>,
    /// Take what is damaged from where it is still intact (results in place, --against), or out of the way.
    #[arg(long)]
    pub(crate) repair: bool,
    /// The lock file instead of the one beside the pipeline.
    #[arg(long, value_name = "PATH")]
    pub(crate) lock_file: Option<PathBuf>,
    /// How many threads the audit and what it runs may use.
    #[arg(long, value_name = "N", env = "RAYON_NUM_THREADS", default_value_t = all_cores(), value_parser = parse_threads,
          hide_default_value = true)]
    pub(crate) threads: usize,
    /// Where results are made again; the folder for temporary files by default. It is kept if something differs.
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Print the report as Markdown.
    #[arg(long, conflicts_with_all = ["html", "json"])]
    pub(crate) md: bool,
    /// Print the report as one HTML page.
    #[arg(long, conflicts_with = "json")]
    pub(crate) html: bool,
}

impl AuditArgs {
    /// Returns the level that the options ask for.
    pub(crate) fn level(&self) -> u8 {
        self.level.unwrap_or(if self.signers.is_some() {
            4
        } else if !self.vary.is_empty() || self.sample.is_some() || self.budget.is_some() {
            3
        } else {
            2
        })
    }
}

/// What to vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VariationChoice {
    /// The number of threads.
    Threads,
    /// The folder in which results are made.
    Path,
    /// User, language, time zone, other variables and the file mode mask.
    Env,
    /// The program is killed on the way and started again.
    Kill,
    /// The order of stages.
    Order,
}

impl From<VariationChoice> for Variation {
    fn from(choice: VariationChoice) -> Self {
        match choice {
            VariationChoice::Threads => Self::Threads,
            VariationChoice::Path => Self::Path,
            VariationChoice::Env => Self::Env,
            VariationChoice::Kill => Self::Kill,
            VariationChoice::Order => Self::Order,
        }
    }
}

/// `spdflow sign`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SignArgs {
    /// The run up to which the log is signed; the last one where left out.
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// The key: a private one, or a public one whose private part is in the agent.
    #[arg(long, value_name = "FILE", env = "SPDFLOW_SIGNING_KEY")]
    pub(crate) key: PathBuf,
    /// The cache.
    #[command(flatten)]
    pub(crate) cache: CacheFolderArgs,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let expected = || format!("expected a share like `20%` or `0.2`, found `{text}`");
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    share.ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_in_percent_or_as_a_fraction() {
        assert_eq!(parse_share("20%"), Ok(0.2));
        assert_eq!(parse_share("0.5"), Ok(0.5));
        for wrong in ["120%", "-1%", "many", "NaN", ""] {
            assert_eq!(parse_share(wrong), Err(format!("expected a share like `20%` or `0.2`, found `{wrong}`")));
        }
    }
}
