//! `spdflow fmt`: brings pipeline files into the common look, or tells which are not in it.
//!
//! The look is that of the shipped pipelines (`layout`). Nothing is written unless the file means the same as before
//! and has the same comments.

mod layout;

use std::fs;
use std::path::Path;

use spdflow_engine::diagnostic::{Diagnostic, Report};
use spdflow_engine::pipeline::Source;
use spdflow_engine::value::toml::parse_document;

use crate::args::{FmtArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Formats the files.
pub(super) fn fmt(args: &FmtArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    // All are read before the first is written, so a mistake in one changes none.
    for path in &args.files {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::input(Diagnostic::new(format!("cannot read `{}`: {error}", path.display()))))?;
        let formatted = formatted(path, &text)?;
        files.push((path, formatted != text, formatted));
    }
    let count = files.iter().filter(|(_, changes, _)| *changes).count();
    for (path, changes, formatted) in &files {
        if *changes && !args.check {
            write(path, formatted)?;
        }
    }
    if style.json {
        let file =
            |path: &Path, changes: bool| serde_json::json!({ "file": path.display().to_string(), "changed": changes });
        let files: Vec<_> = files.iter().map(|(path, changes, _)| file(path, *changes)).collect();
        super::print_json(serde_json::json!({ "files": files }));
    } else if !style.quiet {
        for (path, changes, _) in &files {
            let what = match (changes, args.check) {
                (true, true) => "is not formatted",
                (true, false) => "formatted",
                (false, _) => continue,
            };
            output::data(&format!("{}: {what}\n", path.display()));
        }
    }
    Ok(if args.check && count > 0 { Exit::Stale } else { Exit::Done })
}

/// Returns the text in the common look.
fn formatted(path: &Path, text: &str) -> Result<String, Failure> {
    let before = parse_document(text, 0).map_err(|mistakes| {
        Report::new(mistakes, vec![Source { name: path.display().to_string(), text: text.to_owned() }])
    })?;
    let formatted = layout::formatted(text);
    let is_same = formatted.as_ref().is_some_and(|formatted| {
        parse_document(formatted, 0).is_ok_and(|after| after.to_json() == before.to_json())
            && layout::comments(formatted) == layout::comments(text)
    });
    formatted.filter(|_| is_same).ok_or_else(|| {
        let message =
            format!("`{}` cannot be formatted without changing what it says; it is left as it is", path.display());
        Failure::new(Exit::Bug, Diagnostic::new(message).hint("please report the file"))
    })
}

/// Replaces the text of a file; a link stays a link, and permissions stay.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let replace = || {
        let path = path.canonicalize()?;
        let permissions = fs::metadata(&path)?.permissions();
        super::write_whole(&path, text)?;
        fs::set_permissions(&path, permissions)
    };
    replace().map_err(|error: std::io::Error| {
        Failure::input(Diagnostic::new(format!("cannot write `{}`: {error}", path.display())))
    })
}
