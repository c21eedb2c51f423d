//! Finds the program that a command names.
//!
//! Done here and not by the system, so that a missing program is told from a missing interpreter, and so that starting
//! it needs no copy of this process (a path lets the standard library use `posix_spawn`).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use spdflow_engine::kind::StageError;

use super::folder::Folder;

/// Returns the path of the program `name`: a file seen from where it starts if it holds a `/`, else the first of that
/// name in `PATH`.
pub(super) fn find(
    name: &str,
    environment: &BTreeMap<String, String>,
    folder: &Folder<'_>,
) -> Result<PathBuf, StageError> {
    if name.contains('/') {
        let path = folder.start().join(name);
        return match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(path),
            Ok(_) => Err(StageError::failed(format!("`{name}` is not a program but a folder"))),
            Err(_) if name.starts_with('/') => Err(StageError::failed(format!("there is no program `{name}`"))),
            Err(_) => {
                let hint = format!("list it under `code`, as in `code = [\"{}\"]`", name.trim_start_matches("./"));
                Err(StageError::failed_with_hint(format!("there is no program `{name}` where it starts"), hint))
            }
        };
    }
    let path = environment.get("PATH").map_or("", String::as_str);
    let candidates = path.split(':').map(|part| folder.start().join(part).join(name));
    candidates.into_iter().find(|candidate| is_program(candidate)).ok_or_else(|| {
        let message = format!("there is no program `{name}` in any folder of `PATH`");
        StageError::failed_with_hint(message, format!("`PATH` is `{path}`"))
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
