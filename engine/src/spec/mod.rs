//! Reads pipelines: text to [`Pipeline`], or every mistake in it.
//!
//! The steps, each a file: `source` reads the file and its bases; `merge` lays them over one another; `overrides`
//! applies the profile and the `--set` arguments; `sweep` takes the sweeps out; `check` turns the tree into stages
//! (`stage`, `axes`, `reference`); `expand` makes instances, joins their inputs and resolves their parameters (`substitute`). All of them add to one
//! list of mistakes, so that one report shows everything.
//!
//! `kept` goes round all of it where the result is known from an earlier time.

mod axes;
mod check;
mod expand;
mod join;
mod kept;
mod merge;
mod names;
mod overrides;
mod read;
pub(crate) mod reference;
mod resources;
mod source;
mod stage;
mod substitute;
mod sweep;
#[cfg(test)]
mod tests;
mod tolerances;

use std::io;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Report};
use crate::kind::Registry;
use crate::outside::Seen;
use crate::pipeline::Pipeline;
use check::Checked;
pub use kept::{Keeper, Loaded, load_kept};
pub use resources::time as duration;

/// How to read a pipeline.
pub struct LoadOptions<'a> {
    /// The profile to apply.
    pub profile: Option<String>,
    /// `--set` arguments, `KEY=VALUE`.
    pub set: Vec<String>,
    /// The sweep to expand.
    pub sweep: Option<String>,
    /// Where pipeline files come from.
    pub files: &'a dyn Files,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self { profile: None, set: Vec::new(), sweep: None, files: &Disk }
    }
}

/// Where the texts of pipelines come from, and what their parameters refer to.
pub trait Files {
    /// Returns the text of the file at `path`.
    ///
    /// # Errors
    /// As [`std::fs::read_to_string`].
    fn read(&self, path: &Path) -> io::Result<String>;

    /// Returns the bytes of a file that parameters refer to.
    ///
    /// # Errors
    /// As [`std::fs::read`].
    fn read_bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    /// Returns the names in a folder that parameters refer to, sorted.
    ///
    /// # Errors
    /// As [`std::fs::read_dir`]; [`io::ErrorKind::InvalidData`] for a name that is not UTF-8.
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<std::fs::DirEntry>| {
            entry?.file_name().into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
        };
        let mut names = std::fs::read_dir(path)?.map(name).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// Returns the value of an environment variable that parameters refer to.
    ///
    /// # Errors
    /// As [`std::env::var`].
    fn variable(&self, name: &str) -> Result<String, std::env::VarError> {
        std::env::var(name)
    }
}

/// What the texts of `--set` arguments are called among the sources.
pub(crate) const SET_ARGUMENT: &str = "--set";

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// Mistakes found so far.
type Mistakes = Vec<Diagnostic>;

/// Reads the pipeline at `path` and checks all of it.
///
/// # Errors
/// All mistakes, sorted by place, with the texts they are in.
pub fn load(path: &Path, options: &LoadOptions<'_>, registry: &Registry) -> Result<Pipeline, Report> {
    load_seen(path, options, registry, &Seen::default())
}

/// As [`load`]; what it looks at outside the pipeline is then in `seen`.
fn load_seen(path: &Path, options: &LoadOptions<'_>, registry: &Registry, seen: &Seen) -> Result<Pipeline, Report> {
    let mut mistakes = Mistakes::new();
    let mut sources = Vec::new();
    let Some(mut root) = source::read(path, options.files, &mut sources, &mut mistakes) else {
        return Err(Report::new(mistakes, sources));
    };
    let variables = overrides::apply(&mut root, options, &mut sources, &mut mistakes);
    let sweep = sweep::take(&mut root, options.sweep.as_deref(), &mut mistakes);
    let mut checked = check::check(&root, path, registry, &mut mistakes);
    let sweep = sweep.and_then(|sweep| sweep.install(&mut checked, &mut mistakes));
    // Of a large pipeline the tree takes half of all memory.
    drop(root);
    let around = expand::Around { variables: &variables, sources: &sources, files: options.files, seen };
    let instances = expand::expand(&checked, &around, &mut mistakes);
    if mistakes.is_empty() {
        let Checked { name, description, expected_time, .. } = checked;
        let outside = seen.found();
        Ok(Pipeline { name, description, expected_time, sources, instances, sweep, outside })
    } else {
        Err(Report::new(mistakes, sources))
    }
}
