//! What it takes to repeat a run: the texts of its pipeline and the code of its commands, where they lay relative to one
//! another, the arguments of the run and the variables that the pipeline looked at.
//!
//! A run that has work to do keeps its recipe as `run.json`, beside the files that it names; `replay.sh` says the same to a
//! shell. An audit lays it out elsewhere and runs it there. Every path is relative, so a copy of the folder works as well.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use spdflow_cache::{CacheError, Digest, RunFolder};

use crate::pipeline::Pipeline;
use crate::spec::SET_ARGUMENT;

/// The file in a run's folder.
const RECIPE: &str = "run.json";
const FORMAT: u32 = 1;
/// How many bytes of code are kept with a run: scripts, not data that somebody took for code.
const MOST_CODE_BYTES: usize = 16 << 20;

/// What it takes to repeat a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    format: u32,
    /// The pipeline's file, among the places of the parts.
    pub file: String,
    /// The arguments of `spdflow run` that say what is run, but for the file.
    pub arguments: Vec<String>,
    /// The files.
    pub parts: Vec<Part>,
    /// The environment variables that the pipeline looks at, with their values; nothing for one that was not set.
    pub variables: BTreeMap<String, Option<String>>,
}

/// A file that a pipeline was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Where it lay, relative to the deepest folder that all of them shared.
    pub place: String,
    /// What it is called in the run's folder; nothing if it was too large to keep.
    pub kept: Option<String>,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// Why a recipe cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The run did nothing that could be repeated, was made by an earlier spdflow, or its folder was emptied.
    #[error("run `{run}` has no recipe (`run.json`)")]
    Missing {
        /// The run.
        run: String,
    },
    /// It is not what a run writes.
    #[error("`{}` is not the recipe of a run: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file was too large to be kept with the run.
    #[error("the file `{place}` (digest {digest}) was too large to be kept with the run")]
    NotKept {
        /// Where it lay.
        place: String,
        /// Of its bytes.
        digest: Digest,
    },
    /// A file is not as the recipe says.
    #[error("`{}` is not the file that the run was made of: expected digest {expected}, found {found}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What the recipe says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A file could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// "read", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Recipe {
    /// Returns the recipe of a pipeline, with the bytes of each part.
    #[must_use]
    pub fn of<'p>(pipeline: &'p Pipeline, arguments: &[String]) -> (Self, Vec<&'p [u8]>) {
        let mut files: Vec<(PathBuf, String, &[u8])> = Vec::new();
        for (index, source) in pipeline.sources.iter().enumerate().filter(|(_, source)| source.name != SET_ARGUMENT) {
            files.push((absolute(Path::new(&source.name)), source_name(index, &source.name), source.text.as_bytes()));
        }
        let mut room = MOST_CODE_BYTES;
        let mut too_large = Vec::new();
        for (index, (path, file)) in pipeline.outside.files.iter().enumerate() {
            let path = absolute(path);
            let name = format!("code-{index}-{}", file_name(&path));
            match room.checked_sub(file.bytes.len()) {
                Some(rest) => room = rest,
                None => too_large.push(files.len()),
            }
            files.push((path, name, &file.bytes));
        }
        let root = common_folder(files.iter().map(|(path, ..)| path.as_path()));
        let place = |path: &Path| path.strip_prefix(&root).unwrap_or(path).to_string_lossy().into_owned();
        let part = |(index, (path, name, bytes)): (usize, &(PathBuf, String, &[u8]))| Part {
            place: place(path),
            kept: (!too_large.contains(&index)).then(|| name.clone()),
            digest: Digest::of(bytes),
        };
        let parts: Vec<Part> = files.iter().enumerate().map(part).collect();
        let recipe = Self {
            format: FORMAT,
            file: parts.first().map(|part| part.place.clone()).unwrap_or_default(),
            arguments: arguments.to_vec(),
            parts,
            variables: pipeline.outside.variables.clone(),
        };
        (recipe, files.into_iter().map(|(.., bytes)| bytes).collect())
    }

    /// Writes the recipe and the code into the folder of a run; the texts of the pipeline are there already.
    pub(crate) fn write(&self, bytes: &[&[u8]], folder: &RunFolder) -> Result<(), CacheError> {
        for (part, bytes) in self.parts.iter().zip(bytes) {
            if let Some(name) = part.kept.as_ref().filter(|name| name.starts_with("code-")) {
                folder.write(name, bytes)?;
            }
        }
        let text = serde_json::to_string_pretty(self).expect("a recipe is plain data") + "\n";
        folder.write(RECIPE, text.as_bytes())
    }

    /// Returns the recipe in the folder of a run.
    ///
    /// # Errors
    /// [`RecipeError`] if there is none that can be followed.
    pub fn read(folder: &Path) -> Result<Self, RecipeError> {
        let path = folder.join(RECIPE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RecipeError::Missing { run: file_name(folder) });
            }
            Err(source) => return Err(RecipeError::Io { action: "read", path, source }),
        };
        let recipe: Self = match serde_json::from_slice(&text) {
            Ok(recipe) => recipe,
            Err(error) => return Err(RecipeError::Damaged { path, reason: error.to_string() }),
        };
        let is_plain = |place: &str| !place.split('/').any(|part| matches!(part, "" | "." | ".."));
        let names = recipe.parts.iter().flat_map(|part| [Some(&part.place), part.kept.as_ref()]).flatten();
        if let Some(name) = names.chain([&recipe.file]).find(|name| !is_plain(name)) {
            return Err(RecipeError::Damaged { path, reason: format!("`{name}` is not a plain path") });
        }
        if recipe.format != FORMAT {
            let reason = format!("expected format {FORMAT}, found {}", recipe.format);
            return Err(RecipeError::Damaged { path, reason });
        }
        Ok(recipe)
    }

    /// Lays the files of a run's folder out below `into` as they lay, and returns the pipeline's file.
    ///
    /// # Errors
    /// [`RecipeError`] if a file is missing, changed, or cannot be written.
    pub fn lay_out(&self, folder: &Path, into: &Path) -> Result<PathBuf, RecipeError> {
        for part in &self.parts {
            let Some(kept) = &part.kept else {
                return Err(RecipeError::NotKept { place: part.place.clone(), digest: part.digest });
            };
            let path = folder.join(kept);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(source) => return Err(RecipeError::Io { action: "read", path, source }),
            };
            let found = Digest::of(&bytes);
            if found != part.digest {
                return Err(RecipeError::Changed { path, expected: part.digest, found });
            }
            write(&into.join(&part.place), &bytes)?;
        }
        Ok(into.join(&self.file))
    }

    /// As [`Recipe::lay_out`], with the bytes of the parts at hand.
    ///
    /// # Errors
    /// [`RecipeError::Io`] if a file cannot be written.
    pub fn lay_out_bytes(&self, bytes: &[&[u8]], into: &Path) -> Result<PathBuf, RecipeError> {
        for (part, bytes) in self.parts.iter().zip(bytes) {
            write(&into.join(&part.place), bytes)?;
        }
        Ok(into.join(&self.file))
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RecipeError> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, bytes));
    written.map_err(|source| RecipeError::Io { action: "write", path: path.to_owned(), source })
}

/// Returns what the text of a pipeline's source is called in the run's folder.
pub(crate) fn source_name(index: usize, source: &str) -> String {
    format!("source-{index}-{}", file_name(Path::new(source)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the deepest folder that all files lie in.
fn common_folder<'a>(files: impl Iterator<Item = &'a Path>) -> PathBuf {
    let mut folders = files.map(|file| file.parent().unwrap_or(Path::new("/")).to_owned());
    let first = folders.next().unwrap_or_default();
    folders.fold(first, |common, folder| {
        let pairs = common.components().zip(folder.components());
        pairs.take_while(|(left, right)| left == right).map(|(left, _)| left).collect()
    })
}

/// Returns the path from the root, without `.` and `..` as far as names alone tell.
fn absolute(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        if component == Component::ParentDir {
            result.pop();
        } else {
            result.push(component);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        let part = |place: &str, kept: &str| Part {
            place: place.to_owned(),
            kept: Some(kept.to_owned()),
            digest: Digest::of(place.as_bytes()),
        };
        Recipe {
            format: FORMAT,
            file: "a/p.toml".to_owned(),
            arguments: vec!["--device=cpu".to_owned()],
            parts: vec![part("a/p.toml", "source-0-p.toml"), part("code/x.py", "code-0-x.py")],
            variables: BTreeMap::from([("HOME".to_owned(), None)]),
        }
    }

    #[test]
    fn parts_keep_their_places_below_the_deepest_folder_they_share() {
        let folder = |paths: &[&str]| common_folder(paths.iter().map(Path::new));
        assert_eq!(folder(&["/a/b/p.toml"]), Path::new("/a/b"));
        assert_eq!(folder(&["/a/b/p.toml", "/a/c/d/q.toml"]), Path::new("/a"));
        assert_eq!(folder(&["/a/b/p.toml", "/a/bc/q.toml"]), Path::new("/a"));
        assert_eq!(folder(&["/a/b", "/c/d"]), Path::new("/"));
        assert_eq!(absolute(Path::new("/a/./b/../c/p.toml")), Path::new("/a/c/p.toml"));
    }

    #[test]
    fn a_recipe_lays_its_files_out_and_refuses_changed_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, into) = (dir.path().join("run"), dir.path().join("into"));
        fs::create_dir(&folder).unwrap();
        let write_run = |recipe: &Recipe| fs::write(folder.join(RECIPE), serde_json::to_vec(recipe).unwrap()).unwrap();
        assert_eq!(Recipe::read(&folder).unwrap_err().to_string(), "run `run` has no recipe (`run.json`)");
        write_run(&recipe());
        fs::write(folder.join("source-0-p.toml"), "a/p.toml").unwrap();
        fs::write(folder.join("code-0-x.py"), "code/x.py").unwrap();
        let read = Recipe::read(&folder).unwrap();
        assert_eq!(read, recipe());
        assert_eq!(read.lay_out(&folder, &into).unwrap(), into.join("a/p.toml"));
        assert_eq!(fs::read(into.join("code/x.py")).unwrap(), b"code/x.py");
        fs::write(folder.join("code-0-x.py"), "edited").unwrap();
        assert!(matches!(read.lay_out(&folder, &into), Err(RecipeError::Changed { .. })));
        let mut outside = recipe();
        outside.parts[1].place = "../x.py".to_owned();
        write_run(&outside);
        let message = Recipe::read(&folder).unwrap_err().to_string();
        assert!(message.ends_with("is not the recipe of a run: `../x.py` is not a plain path"), "{message}");
    }
}
