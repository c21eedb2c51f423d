//! `spdflow new`: a pipeline of one's own, beginning as a copy of a shipped one.
//!
//! The bases of the shipped pipeline are written beside it, so that all of it can be changed.

use std::path::{Path, PathBuf};

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::suggest::did_you_mean;

use crate::args::{NewArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::shipped::{SHIPPED, Shipped};

/// The first line of a new pipeline: it lets editors complete and check it.
const SCHEMA: &str = "#:schema ./spdflow.schema.json\n";

/// Writes the pipeline and its bases.
pub(super) fn new(args: &NewArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let name = args.name.strip_suffix(".toml").unwrap_or(&args.name);
    if let Some(mistake) = mistake_in_name(name) {
        return Err(Failure::input(Diagnostic::new(format!("`{name}` cannot be a pipeline's name: {mistake}"))));
    }
    let from = shipped(&args.from)?;
    let mut files = vec![(PathBuf::from(format!("{name}.toml")), SCHEMA.to_owned() + &renamed(from, name))];
    let mut below = from;
    while let Some(base) = base(below.text) {
        let folder = Path::new(below.name).parent().unwrap_or(Path::new(""));
        below = shipped(&joined(folder, base))?;
        files.push((PathBuf::from(file_of(base)), beside(below.text)));
    }
    for (path, text) in &files {
        let is_own_base = files.iter().filter(|(other, _)| other == path).count() > 1;
        let is_taken = path.exists() && !std::fs::read_to_string(path).is_ok_and(|known| known == *text);
        if is_own_base || is_taken {
            let why = if is_own_base { "would be its own base" } else { "exists already and is not overwritten" };
            let message = format!("`{}` {why}", path.display());
            return Err(Failure::input(Diagnostic::new(message).hint("choose another name, or move it away")));
        }
    }
    // Bases first: a pipeline that is there can be read.
    for (path, text) in files.iter().rev() {
        super::write_new(path, text)?;
    }
    let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    if style.json {
        super::print_json(serde_json::json!({ "pipeline": name, "from": from.name, "files": names }));
    } else if !style.quiet {
        output::data(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
        output::message(&format!(
            "next: edit it, `spdflow check {name}.toml`, `spdflow plan {name}.toml`, `spdflow run {name}.toml`\n      \
             `spdflow schema > spdflow.schema.json` lets editors complete and check it\n"
        ));
    }
    Ok(Exit::Done)
}

fn shipped(name: &str) -> Result<&'static Shipped, Failure> {
    SHIPPED.iter().find(|shipped| shipped.name == name).ok_or_else(|| {
        let hint = did_you_mean(name, SHIPPED.iter().map(|shipped| shipped.name))
            .unwrap_or_else(|| "`spdflow pipelines` lists those that are shipped".to_owned());
        Failure::input(Diagnostic::new(format!("there is no shipped pipeline `{name}`")).hint(hint))
    })
}

/// Returns what is wrong with a name that becomes a file's and a folder's.
fn mistake_in_name(name: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        return Some("expected letters, digits, `_`, `.` and `-`");
    }
    name.starts_with(['.', '-']).then_some("expected a letter, a digit or `_` at its beginning")
}

/// Returns the file that a shipped pipeline lies over.
fn base(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("base = \"")?.strip_suffix('"'))
}

/// Returns the name of the shipped pipeline whose file is `base`, seen from `folder`.
fn joined(folder: &Path, base: &str) -> String {
    let path = match base.strip_prefix("../") {
        Some(base) => folder.parent().unwrap_or(Path::new("")).join(base),
        None => folder.join(base),
    };
    path.with_extension("").display().to_string()
}

fn file_of(base: &str) -> &str {
    base.rsplit('/').next().unwrap_or(base)
}

/// Returns the text with its base beside it.
fn beside(text: &str) -> String {
    match base(text) {
        Some(base) => text.replacen(&format!("base = \"{base}\""), &format!("base = \"{}\"", file_of(base)), 1),
        None => text.to_owned(),
    }
}

/// Returns the text of a shipped pipeline under another name.
fn renamed(from: &Shipped, name: &str) -> String {
    let mut is_named = false;
    let line = |line: &str| {
        if !is_named && line.starts_with("name = \"") {
            is_named = true;
            return format!("name = \"{name}\"\n");
        }
        line.to_owned() + "\n"
    };
    beside(from.text).lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_pipeline_can_be_copied_with_its_bases() {
        for from in SHIPPED {
            let text = renamed(from, "mine");
            assert_eq!(text.matches("name = \"mine\"").count(), 1, "{}", from.name);
            let mut below = from;
            while let Some(base) = base(below.text) {
                let folder = Path::new(below.name).parent().unwrap_or(Path::new(""));
                below = shipped(&joined(folder, base)).expect("a base is shipped too");
            }
        }
    }
}
