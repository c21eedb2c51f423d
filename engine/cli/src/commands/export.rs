//! `spdflow export`: what the cache knows of results, in the forms in which others keep provenance.

use std::fs;
use std::path::{Path, PathBuf};

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::export::Exports;

use super::{evidence, lock};
use crate::args::{ExportArgs, ExportFormat, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Writes the chosen form of results that are all there.
pub(super) fn export(args: &ExportArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let pipeline = super::load(&args.pipeline)?;
    let path = match (&args.output, args.format) {
        (None, ExportFormat::RoCrate) => Some(default_folder(args)),
        (path, _) => path.clone(),
    };
    if let Some(path) = path.as_ref().filter(|path| path.exists()) {
        let message = format!("`{}` exists already and is not overwritten", path.display());
        return Err(Failure::input(Diagnostic::new(message).hint("choose another name with `--output`")));
    }
    let cache = evidence::open(&args.store.cache)?;
    // What is exported must not be collected as garbage meanwhile.
    let _hold = cache.hold_existing()?;
    let results = evidence::results(&pipeline, &args.stages, &cache, &args.store, &args.pipeline)?;
    let arguments = evidence::arguments(&args.pipeline, &args.stages, &args.store);
    let exports = Exports::new(&pipeline, &cache, &results, &arguments)?;
    let text = match (args.format, &path) {
        (ExportFormat::Slsa, _) => exports.slsa(),
        (ExportFormat::Prov, _) => format!("{:#}\n", exports.prov()),
        (ExportFormat::RoCrate, None) => unreachable!("a crate has a folder"),
        (ExportFormat::RoCrate, Some(folder)) => {
            let files = write_folder(&exports, folder, &args.license)?;
            tell(folder, &pipeline.name, results.len(), Some(files), style);
            return Ok(Exit::Done);
        }
    };
    match path {
        None => output::data(&text),
        Some(path) => {
            super::write_new(&path, &text)?;
            tell(&path, &pipeline.name, results.len(), None, style);
        }
    }
    Ok(Exit::Done)
}

/// Fills a folder beside its place and renames it, so that it is there whole or not at all.
fn write_folder(exports: &Exports<'_>, folder: &Path, license: &str) -> Result<usize, Failure> {
    let mut partial = folder.to_owned();
    partial.as_mut_os_string().push(format!(".{}.tmp", std::process::id()));
    let cannot = |error: std::io::Error| {
        Failure::input(Diagnostic::new(format!("cannot write `{}`: {error}", folder.display())))
    };
    fs::create_dir(&partial).map_err(cannot)?;
    let written = exports.write_ro_crate(&partial, license);
    let written = written.map_err(Failure::from).and_then(|files| {
        fs::rename(&partial, folder).map_err(cannot)?;
        Ok(files)
    });
    written.inspect_err(|_| drop(fs::remove_dir_all(&partial)))
}

fn tell(path: &Path, pipeline: &str, results: usize, files: Option<usize>, style: &OutputArgs) {
    if style.json {
        let file = path.display().to_string();
        super::print_json(
            serde_json::json!({ "pipeline": pipeline, "file": file, "results": results, "files": files }),
        );
    } else if !style.quiet {
        let what = if results == 1 { "result" } else { "results" };
        let files = files.map(|files| format!(", {files} files")).unwrap_or_default();
        output::data(&format!("{}: {results} {what}{files}\n", path.display()));
    }
}

/// Returns the name of a crate: that of the pipeline's file, with the profile and sweep it is for, in the present folder.
fn default_folder(args: &ExportArgs) -> PathBuf {
    let lock = lock::path(&args.pipeline, None);
    Path::new(lock.file_name().unwrap_or_default()).with_extension("ro-crate")
}
