//! What the commands that carry evidence out of a cache share. They change nothing in it: none of them makes a cache, moves
//! away what is damaged, or keeps the pipeline in the index.

use std::path::Path;

use spdflow_engine::bundle::Arguments;
use spdflow_engine::cache::Cache;
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::present::{Lack, Lacking, Present, present};

use super::store;
use crate::args::{PipelineArgs, StoreArgs};
use crate::failure::{Exit, Failure};

/// How many results that are lacking are named.
const NAMED: usize = 10;

/// Opens the cache that is in this folder.
pub(super) fn open(folder: &Path) -> Result<Cache, Failure> {
    if !folder.join("VERSION").exists() {
        let message = format!("there is no cache in `{}`", folder.display());
        let hint = "name one with `--cache DIR` or `SPDFLOW_CACHE`; `spdflow run` makes it";
        return Err(Failure::input(Diagnostic::new(message).hint(hint)));
    }
    Ok(Cache::open_existing(folder)?)
}

/// Returns the results of the stages named and what they need; all of them must be there.
pub(super) fn results(
    pipeline: &Pipeline,
    stages: &[String],
    cache: &Cache,
    store: &StoreArgs,
    args: &PipelineArgs,
) -> Result<Vec<Present>, Failure> {
    let scope = store::targets(pipeline, stages)?;
    present(pipeline, cache, &scope, &store.target())?.map_err(|lacks| lacking(&lacks, args))
}

/// Returns how the pipeline was called.
pub(super) fn arguments(pipeline: &PipelineArgs, stages: &[String], store: &StoreArgs) -> Arguments {
    Arguments {
        profile: pipeline.profile.clone(),
        sweep: pipeline.sweep.clone(),
        set: pipeline.set.clone(),
        stages: stages.to_vec(),
        device: store.device.to_string(),
        ranks: store.ranks(),
    }
}

fn lacking(lacks: &[Lack], args: &PipelineArgs) -> Failure {
    let count = lacks.len();
    let mut message = match lacks {
        [lack] => lack.to_string(),
        _ => format!("{count} results are not there:"),
    };
    if count > 1 {
        for lack in lacks.iter().take(NAMED) {
            message += &format!("\n  {lack}");
        }
    }
    if count > NAMED {
        message += &format!("\n  and {} more", count - NAMED);
    }
    let is_damaged = lacks.iter().any(|lack| matches!(lack.what, Lacking::Trust(_)));
    let (exit, hint) = if is_damaged {
        (Exit::Cache, format!("`spdflow cache verify` puts it aside, then `spdflow run {}` makes it anew", args.file))
    } else {
        (Exit::Stale, format!("make what is missing: `spdflow run {}`", args.file))
    };
    Failure::new(exit, Diagnostic::new(message).hint(hint))
}
