//! `spdflow import-config`: a configuration of the Python implementation becomes a pipeline.
//!
//! What is written has been checked as `spdflow check` does; a configuration that cannot become a right pipeline leaves
//! no file behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::spec::{self, LoadOptions};
use spdflow_stages::import::{Configuration, import};

use crate::args::{ImportConfigArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::registry::registry;

/// Writes or prints the pipeline.
pub(super) fn import_config(args: &ImportConfigArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let file = args.file.display().to_string();
    let text = fs::read_to_string(&args.file).map_err(|error| unreadable(&file, &error))?;
    let name = name(args.output.as_deref().unwrap_or(&args.file));
    let configuration = Configuration { file: &file, text: &text, name: &name, target: args.target.as_deref() };
    let pipeline = import(&configuration)?;
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let imported = Imported { path: &path, text: &pipeline };
    spec::load(&path, &LoadOptions { files: &imported, ..LoadOptions::default() }, &registry())?;
    let Some(output) = &args.output else {
        if style.json {
            super::print_json(serde_json::json!({ "pipeline": name, "output": null, "text": pipeline }));
        } else {
            output::data(&pipeline);
        }
        return Ok(Exit::Done);
    };
    super::write_new(output, &pipeline)?;
    let output = output.display().to_string();
    if style.json {
        super::print_json(serde_json::json!({ "pipeline": name, "output": output, "text": pipeline }));
    } else if !style.quiet {
        output::data(&format!("{output}: made from {file}; its comments say what was dropped or assumed\n"));
        output::message(&format!("next: `spdflow plan {output}`, `spdflow run {output}`\n"));
    }
    Ok(Exit::Done)
}

/// Returns what to call a pipeline that lies at `path`, or is made from a configuration there.
fn name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = stem.strip_suffix("_config").unwrap_or(&stem);
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(allowed).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "imported".to_owned() } else { name.to_owned() }
}

fn unreadable(file: &str, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    Failure::input(Diagnostic::new(format!("cannot read configuration `{file}`: {reason}")))
}

/// The pipeline that is about to be written, to be checked first.
struct Imported<'a> {
    path: &'a Path,
    text: &'a str,
}

impl spec::Files for Imported<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        if path == self.path { Ok(self.text.to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_are_called_as_their_file() {
        assert_eq!(name(Path::new("configs/tms_5-2_config.yaml")), "tms_5-2");
        assert_eq!(name(Path::new("my run.toml")), "my-run");
        assert_eq!(name(Path::new("_config.yaml")), "imported");
    }
}
