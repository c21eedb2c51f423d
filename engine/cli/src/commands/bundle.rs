//! `spdflow bundle`: a pipeline, its results and the evidence of how they came about, in one file.

use std::path::{Path, PathBuf};

use spdflow_engine::bundle::{BundleError, ENDING, Packing, pack};
use spdflow_engine::diagnostic::Diagnostic;

use super::{evidence, lock};
use crate::args::{BundleArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::text::size;

/// Makes a bundle of results that are all there.
pub(super) fn bundle(args: &BundleArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let pipeline = super::load(&args.pipeline)?;
    let path = args.output.clone().unwrap_or_else(|| default_path(args));
    if path.exists() && !args.force {
        let message = format!("`{}` exists already and is not overwritten", path.display());
        let hint = "choose another name with `--output`, or give `--force`";
        return Err(Failure::input(Diagnostic::new(message).hint(hint)));
    }
    let cache = evidence::open(&args.store.cache)?;
    // What is packed must not be collected as garbage meanwhile.
    let _hold = cache.hold_existing()?;
    let results = evidence::results(&pipeline, &args.stages, &cache, &args.store, &args.pipeline)?;
    let arguments = evidence::arguments(&args.pipeline, &args.stages, &args.store);
    let digests_only = args.digests_only;
    let packed =
        pack(&Packing { pipeline: &pipeline, cache: &cache, results: &results, arguments, digests_only }, &path)?;
    if style.json {
        super::print_json(serde_json::json!({
            "pipeline": pipeline.name, "file": path.display().to_string(), "digests_only": digests_only,
            "results": results.len(), "files": packed.files, "content_bytes": packed.content_bytes,
            "size_bytes": packed.size_bytes,
        }));
    } else if !style.quiet {
        let what = if results.len() == 1 { "result" } else { "results" };
        output::data(&format!(
            "{}: {} {what}, {} files, {}\n",
            path.display(),
            results.len(),
            packed.files,
            size(packed.size_bytes)
        ));
    }
    Ok(Exit::Done)
}

/// Returns the bundle's name: that of the pipeline's file, with the profile and sweep it is for, in the present folder.
fn default_path(args: &BundleArgs) -> PathBuf {
    let lock = lock::path(&args.pipeline, None);
    let stem = Path::new(lock.file_name().unwrap_or_default()).with_extension("");
    let mut path = stem;
    path.as_mut_os_string().push(ENDING);
    path
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        let exit = match &error {
            BundleError::Cache(_) | BundleError::DamagedBlob { .. } => Exit::Cache,
            BundleError::Name { .. }
            | BundleError::Io { .. }
            | BundleError::NotEmpty { .. }
            | BundleError::NotABundle { .. }
            | BundleError::NoRoom { .. } => Exit::Input,
            BundleError::Damaged { .. } | BundleError::Refused { .. } | BundleError::TooLarge { .. } => Exit::Integrity,
        };
        Self::new(exit, Diagnostic::new(error.to_string()).hint_if_any(error.hint()))
    }
}
