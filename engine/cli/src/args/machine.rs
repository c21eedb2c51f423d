//! Options for what a run may use of the machine.

use clap::Args;
use spdflow_engine::size;

/// What a run may use of the machine.
#[derive(Debug, Clone, Args)]
pub(crate) struct MachineArgs {
    /// How many stages may run at once.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = parse_count)]
    pub(crate) jobs: usize,
    /// How many threads the running stages share.
    #[arg(long, value_name = "N", env = "RAYON_NUM_THREADS", default_value_t = all_cores(), value_parser = parse_threads,
          hide_default_value = true)]
    pub(crate) threads: usize,
    /// How much memory the running stages share, such as `16GiB`; by default all of it.
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub(crate) memory: Option<u64>,
    /// The GPUs that stages are given, as in `0,1`; by default those of `CUDA_VISIBLE_DEVICES`, if that is set.
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    pub(crate) gpus: Option<Vec<String>>,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "expected an amount of memory such as `16GiB` or `500MB`".to_owned())
}

/// Returns the number of threads; 0 means all cores, as it does to rayon.
pub(super) fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        // An empty variable is one that is not set.
        _ if text.is_empty() => Ok(all_cores()),
        Ok(0) => Ok(all_cores()),
        Ok(count) => Ok(count),
        Err(_) => Err("expected a whole number".to_owned()),
    }
}

pub(super) fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_unit_and_is_not_nothing() {
        assert_eq!(parse_memory("16GiB"), Ok(16 << 30));
        assert!(["20", "0GiB", ""].into_iter().all(|wrong| parse_memory(wrong).is_err()));
    }
}
