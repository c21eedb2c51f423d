//! Reads a pipeline file and, under it, the files that its `base` names.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Files, Mistakes, merge};
use crate::diagnostic::Diagnostic;
use crate::pipeline::Source;
use crate::value::{Data, Origin, Value, toml};

/// How many files may lie over one another; more is a loop through links that names cannot show.
const MAX_BASES: usize = 64;

/// Returns the tree of the file at `path` merged over its bases, or nothing if one cannot be read.
pub(super) fn read(
    path: &Path,
    files: &dyn Files,
    sources: &mut Vec<Source>,
    mistakes: &mut Mistakes,
) -> Option<Value> {
    let mut layers: Vec<Value> = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut base_origins: Vec<Origin> = Vec::new();
    let mut next = Some(path.to_path_buf());
    while let Some(path) = next.take() {
        let path = if seen.is_empty() { path } else { normalized(&path) };
        let identity = normalized(&path);
        if let Some(first) = seen.iter().position(|file| *file == identity) {
            mistakes.push(base_cycle(first, sources, &base_origins));
            break;
        }
        let asked_for = base_origins.last();
        if seen.len() == MAX_BASES {
            mistakes.push(Diagnostic::new(format!("more than {MAX_BASES} bases lie over one another")).at(asked_for));
            break;
        }
        seen.push(identity);
        let text = match files.read(&path) {
            Ok(text) => text,
            Err(error) => {
                mistakes.push(unreadable(&path, &error, asked_for));
                break;
            }
        };
        let source = sources.len();
        sources.push(Source { name: path.display().to_string(), text });
        match toml::parse_document(&sources[source].text, source) {
            Err(errors) => mistakes.extend(errors),
            Ok(mut layer) => {
                if let Some((base, origin)) = take_base(&mut layer, mistakes) {
                    next = Some(path.parent().unwrap_or(Path::new("")).join(base));
                    base_origins.push(origin);
                }
                layers.push(layer);
            }
        }
    }
    if !mistakes.is_empty() {
        return None;
    }
    layers.into_iter().rev().reduce(merge::over)
}

/// Takes `base = "…"` out of a tree.
fn take_base(layer: &mut Value, mistakes: &mut Mistakes) -> Option<(String, Origin)> {
    let Data::Table(entries) = &mut layer.data else { return None };
    let base = entries.remove("base")?.value;
    let origin = base.origin.clone();
    match (base.data, origin) {
        (Data::String(file), Some(origin)) if !file.is_empty() => Some((file, origin)),
        (data, origin) => {
            let found = Value::new(data).described();
            let message = format!("expected a pipeline file as `base`, found {found}");
            mistakes.push(Diagnostic::new(message).at(origin.as_ref()));
            None
        }
    }
}

fn unreadable(path: &Path, error: &io::Error, asked_for: Option<&Origin>) -> Diagnostic {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    };
    let diagnostic = Diagnostic::new(format!("cannot read pipeline `{}`: {reason}", path.display())).at(asked_for);
    match asked_for {
        Some(_) => diagnostic.hint("`base` is relative to the folder of the file it stands in"),
        None => diagnostic,
    }
}

fn base_cycle(first: usize, sources: &[Source], base_origins: &[Origin]) -> Diagnostic {
    let files = sources[first..].iter().chain([&sources[first]]);
    let path = files.map(|source| format!("`{}`", source.name)).collect::<Vec<_>>().join(" → ");
    let mut diagnostic = Diagnostic::new(format!("pipeline files form a cycle of bases: {path}"));
    for origin in &base_origins[first..] {
        diagnostic = diagnostic.at(Some(origin));
    }
    diagnostic
}

/// Returns the path without `.` and `..`, as far as names alone tell.
fn normalized(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(result.components().next_back(), Some(Component::Normal(_))) => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    result
}
