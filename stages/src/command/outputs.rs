//! From what a program left in its outputs to the files of the artifact.

use std::fs;
use std::io;
use std::path::Path;

use spdflow_engine::kind::{StageError, Summary};

use super::params::CommandParams;

/// Makes the folders that outputs lie in: programs expect to create files, not the folders above them.
pub(super) fn make_folders(params: &CommandParams, out_dir: &Path) -> Result<(), StageError> {
    for path in params.outputs.values() {
        // A path that ends in `/` says that the program expects the folder itself.
        if let Some((folder, _)) = path.rsplit_once('/') {
            let folder = out_dir.join(folder);
            fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
        }
    }
    Ok(())
}

/// Returns the files of all outputs.
///
/// # Errors
/// An output that is missing, or a file that belongs to none.
pub(super) fn summary(params: &CommandParams, program: &str, out_dir: &Path) -> Result<Summary, StageError> {
    let mut summary = Summary::default();
    for (name, path) in &params.outputs {
        let path = path.trim_end_matches('/');
        let place = out_dir.join(path);
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = format!("`{program}` ended well but did not make its output `{name}` (`{path}`)");
                let hint = format!("it has to write that to the path that `{{out.{name}}}` stands for");
                return Err(StageError::failed_with_hint(message, hint));
            }
            Err(error) => return Err(StageError::io("read", &place)(error)),
        };
        let about = format!("output `{name}`");
        if metadata.is_dir() {
            let files = files_below(out_dir, path)?;
            if files.is_empty() {
                let message = format!("`{program}` left its output `{name}` (`{path}`) an empty folder");
                return Err(StageError::failed_with_hint(message, "an artifact holds files; let it write one"));
            }
            for file in files {
                summary.file(&file, format(&file), &about);
            }
        } else {
            check_is_file(&metadata.file_type(), path)?;
            summary.file(path, format(path), about);
        }
    }
    let declared: std::collections::BTreeSet<_> = summary.files.iter().map(|file| file.path.as_str()).collect();
    if let Some(file) = files_below(out_dir, "")?.into_iter().find(|file| !declared.contains(file.as_str())) {
        let message = format!("`{program}` wrote `{file}` beside its outputs, which belongs to none of them");
        let hint = "declare it in `outputs`, or write it where the program starts: that folder is thrown away";
        return Err(StageError::failed_with_hint(message, hint));
    }
    Ok(summary)
}

/// Returns the files below a folder, sorted, by their paths below `out_dir`.
fn files_below(out_dir: &Path, folder: &str) -> Result<Vec<String>, StageError> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(below) = open.pop() {
        let place = if below.is_empty() { out_dir.to_owned() } else { out_dir.join(&below) };
        let entries = fs::read_dir(&place).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(StageError::io("read", &place))? {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let shown = name.to_string_lossy();
                return Err(StageError::failed(format!("the name of the output file `{shown}` is not UTF-8")));
            };
            let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            let kind = entry.file_type().map_err(StageError::io("read", &place))?;
            if kind.is_dir() {
                open.push(path);
            } else {
                check_is_file(&kind, &path)?;
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn check_is_file(kind: &fs::FileType, path: &str) -> Result<(), StageError> {
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_symlink() { "a link" } else { "not a regular file" };
    Err(StageError::failed(format!("output file `{path}` is {what}, expected a file with its bytes")))
}

fn format(path: &str) -> String {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    extension.map_or("file".to_owned(), str::to_ascii_lowercase)
}
