//! The private folder of a command: where it starts, with its code, and its inputs beside that.
//!
//! ```text
//! scratch/             where the program starts, with the code
//! scratch/here/        where it starts if code was written as `../x.py`, which then lies in `scratch/`
//! scratch/in/NAME/     copies of the files of an input; NAME/0, NAME/1, … if it takes several artifacts
//! out/                 its outputs
//! ```
//!
//! Paths are handed over relative to where the program starts, so that a program which writes its arguments into its
//! outputs makes the same bytes on every machine. Nothing here tells names of stages or values of axes, since these are
//! not part of the fingerprint.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use spdflow_engine::cache::empty_folder;
use spdflow_engine::kind::{InputArtifact, StageContext, StageError};

use super::contents::Scalar;
use super::params::CommandParams;
use super::template::{Piece, Template};

/// The folder of the inputs.
const INPUTS: &str = "in";

/// Where a file of the code lies, seen from where the program starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodePlace {
    /// How many folders above.
    up: usize,
    below: String,
}

impl fmt::Display for CodePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", "../".repeat(self.up), self.below)
    }
}

/// Returns the place that `path` writes, or why it is none.
pub(super) fn code_place(path: &str) -> Result<CodePlace, &'static str> {
    if path.starts_with('/') {
        return Err("is absolute, expected a path relative to the folder of the pipeline file");
    }
    let (mut up, mut below) = (0, Vec::new());
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if below.pop().is_none() => up += 1,
            ".." => {}
            name => below.push(name),
        }
    }
    if below.first() == Some(&INPUTS) {
        return Err("lies in a folder named `in`, which is the place of the inputs; expected another name");
    }
    if below.is_empty() {
        return Err("is the pipeline's own folder or one above it, expected files or folders in it");
    }
    Ok(CodePlace { up, below: below.join("/") })
}

/// The folder of one attempt.
pub(super) struct Folder<'a> {
    start: PathBuf,
    /// The paths of each input's folders.
    inputs: BTreeMap<String, Vec<String>>,
    outputs: BTreeMap<&'a str, String>,
    values: &'a BTreeMap<String, Scalar>,
    threads: usize,
}

impl<'a> Folder<'a> {
    /// Makes the folder anew and fills it.
    pub(super) fn make(params: &'a CommandParams, context: &StageContext<'_>) -> Result<Self, StageError> {
        let places: Vec<_> = context.files.keys().filter_map(|path| code_place(path).ok()).collect();
        let depth = places.iter().map(|place| place.up).max().unwrap_or(0);
        let root = context.scratch_dir;
        // What an attempt that was cut short left; a command has no checkpoints.
        empty_folder(root).map_err(|error| StageError::failed(error.to_string()))?;
        let mut start = root.to_owned();
        for _ in 0..depth {
            start.push("here");
            create(&start)?;
        }
        for (place, file) in places.iter().zip(context.files.values()) {
            let path = start.ancestors().nth(place.up).unwrap_or(&start).join(&place.below);
            write_code(&path, &file.bytes)?;
        }
        let to_root = "../".repeat(depth);
        let mut inputs = BTreeMap::new();
        for name in inputs_asked_for(params) {
            let artifacts = context.inputs(&name);
            let below = |index| match artifacts.len() {
                1 => format!("{INPUTS}/{name}"),
                _ => format!("{INPUTS}/{name}/{index}"),
            };
            for (index, artifact) in artifacts.iter().enumerate() {
                copy(artifact, &root.join(below(index)))?;
            }
            let paths = (0..artifacts.len()).map(|index| format!("{to_root}{}", below(index))).collect();
            inputs.insert(name, paths);
        }
        let are_siblings = context.out_dir.parent() == root.parent();
        let out = context.out_dir.file_name().filter(|_| are_siblings).map(|name| name.to_string_lossy());
        let out = out.map_or(context.out_dir.display().to_string(), |name| format!("{to_root}../{name}"));
        let output =
            |(name, path): (&'a String, &String)| (name.as_str(), format!("{out}/{}", path.trim_end_matches('/')));
        let outputs = params.outputs.iter().map(output).collect();
        Ok(Self { start, inputs, outputs, values: &params.values, threads: context.threads })
    }

    /// Returns the folder in which the program starts.
    pub(super) fn start(&self) -> &Path {
        &self.start
    }

    /// Returns the program and its arguments.
    pub(super) fn arguments(&self, params: &CommandParams) -> Result<Vec<String>, StageError> {
        let mut arguments = Vec::with_capacity(params.run.len());
        for text in &params.run {
            let template = Template::parse(text).map_err(StageError::failed)?;
            match template.whole_input().and_then(|name| self.inputs.get(name)) {
                Some(folders) => arguments.extend(folders.iter().cloned()),
                None => arguments.push(self.filled(&template)),
            }
        }
        Ok(arguments)
    }

    /// Returns the text of a template.
    pub(super) fn filled(&self, template: &Template) -> String {
        let mut text = String::new();
        for piece in &template.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::In(name) => self.inputs[name].iter().for_each(|folder| text.push_str(folder)),
                Piece::Out(name) => text.push_str(&self.outputs[name.as_str()]),
                Piece::Value(name) => text.push_str(&self.values[name].to_string()),
                Piece::Threads => text.push_str(&self.threads.to_string()),
            }
        }
        text
    }
}

/// Returns the names of the inputs that a placeholder stands for; the others only order the stages.
fn inputs_asked_for(params: &CommandParams) -> Vec<String> {
    let mut names = Vec::new();
    for text in params.run.iter().chain(params.env.values()) {
        for piece in Template::parse(text).map(|template| template.0).unwrap_or_default() {
            match piece {
                Piece::In(name) if !names.contains(&name) => names.push(name),
                _ => {}
            }
        }
    }
    names
}

// Copies, by reflink where the file system can: a program that writes to its inputs must not reach the cache.
fn copy(artifact: &InputArtifact, folder: &Path) -> Result<(), StageError> {
    create(folder)?;
    for (file, blob) in &artifact.files {
        let path = folder.join(file);
        if let Some(parent) = path.parent().filter(|_| file.contains('/')) {
            create(parent)?;
        }
        fs::copy(blob, &path).map_err(StageError::io("copy", blob))?;
    }
    Ok(())
}

// Always executable, so that permissions in the checkout make no difference.
fn write_code(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    if let Some(parent) = path.parent() {
        create(parent)?;
    }
    fs::write(path, bytes).map_err(StageError::io("write", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(StageError::io("write", path))
}

fn create(folder: &Path) -> Result<(), StageError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(folder),
        created => created,
    }
    .map_err(StageError::io("create", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_same_however_it_is_written() {
        for (path, expected) in
            [("a.py", "a.py"), ("./a/../b//c.py", "b/c.py"), ("../../lib/x", "../../lib/x"), ("a/../../x", "../x")]
        {
            assert_eq!(code_place(path).map(|place| place.to_string()), Ok(expected.to_owned()), "{path}");
        }
        for path in ["", ".", "..", "a/..", "/etc/passwd", "in/x", "./in"] {
            assert!(code_place(path).is_err(), "{path}");
        }
    }
}
