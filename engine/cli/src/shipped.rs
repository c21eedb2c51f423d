//! The pipelines that come with the binary, and what FILE on the command line means.
//!
//! The texts are embedded, so `spdflow run tms` works without a checkout. A path that exists always wins over a
//! shipped name.

use std::io;
use std::path::{Path, PathBuf};

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::spec;
use spdflow_engine::suggest::did_you_mean;

use crate::failure::Failure;

/// A shipped pipeline.
pub(crate) struct Shipped {
    /// What to call it on the command line.
    pub(crate) name: &'static str,
    /// The text of its file.
    pub(crate) text: &'static str,
}

/// Lists shipped pipelines by the paths of their files below `pipelines/`.
macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(Shipped { name: $name, text: include_str!(concat!("../../../pipelines/", $name, ".toml")) }),*]
    };
}

/// Every shipped pipeline, by name.
pub(crate) const SHIPPED: &[Shipped] = shipped![
    "ih",
    "paper/resid_mlp1",
    "paper/resid_mlp2",
    "paper/resid_mlp3",
    "paper/tms_40-10",
    "paper/tms_40-10-id",
    "paper/tms_5-2",
    "paper/tms_5-2-id",
    "resid_mlp1",
    "resid_mlp2",
    "resid_mlp3",
    "tms",
    "tms_40-10",
    "tms_40-10-id",
    "tms_5-2",
    "tms_5-2-id",
];

/// The folder that shipped pipelines pretend to lie in; no such folder exists.
const FOLDER: &str = "<shipped>";

/// Returns whether `file` names a shipped pipeline and not a file of the user's.
pub(crate) fn is_shipped(file: &str) -> bool {
    !Path::new(file).exists() && SHIPPED.iter().any(|shipped| shipped.name == file)
}

/// Returns the path for [`spec::load`] of what the user called `file`.
pub(crate) fn path_of(file: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(file);
    if path.is_dir() {
        return Err(Failure::input(Diagnostic::new(format!("`{file}` is a folder, expected a pipeline file"))));
    }
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    if SHIPPED.iter().any(|shipped| shipped.name == file) {
        return Ok(shipped_path(file));
    }
    let names = SHIPPED.iter().map(|shipped| shipped.name);
    let hint =
        did_you_mean(file, names).unwrap_or_else(|| "`spdflow pipelines` lists those that are shipped".to_owned());
    Err(Failure::input(Diagnostic::new(format!("there is no pipeline file `{file}`")).hint(hint)))
}

/// Returns the path under which [`Files`] finds the shipped pipeline `name`.
pub(crate) fn shipped_path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.toml"))
}

/// Reads pipeline files from the disk, and shipped ones from the binary.
pub(crate) struct Files;

impl spec::Files for Files {
    fn read(&self, path: &Path) -> io::Result<String> {
        if path.starts_with(FOLDER) {
            let shipped = SHIPPED.iter().find(|shipped| path == shipped_path(shipped.name));
            return shipped.map(|shipped| shipped.text.to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        spec::Disk.read(path)
    }
}
