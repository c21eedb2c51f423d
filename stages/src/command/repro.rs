//! `repro.sh`, left in the work folder of a command that failed: runs the same program once more, just so.
//!
//! The same arguments, the same environment and nothing else of it, in the same folder, which is as the attempt left it.
//! Paths are relative to the script, so that a copy of the work folder does as well. The next attempt of spdflow begins
//! with an empty folder, whatever was tried in it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spdflow_engine::kind::{StageContext, StageError};
use spdflow_engine::shell::{quoted, shown};

/// Returns the error of a program that failed, with a script that repeats that if it can be written.
pub(super) fn with_script(
    error: StageError,
    arguments: &[String],
    environment: &BTreeMap<String, String>,
    start: &Path,
    context: &StageContext<'_>,
) -> StageError {
    let StageError::Failed { message, hint } = error else { return error };
    let path = context.repro_path;
    let text = script(arguments, environment, start, path.parent().unwrap_or(Path::new("")));
    let written = fs::write(path, text).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)));
    let told = written.is_ok().then(|| format!("`sh {}` runs it again just so", shown(&path.to_string_lossy())));
    StageError::Failed { message, hint: hint.or(told) }
}

fn script(arguments: &[String], environment: &BTreeMap<String, String>, start: &Path, folder: &Path) -> String {
    let start_text = start.display().to_string();
    let variable = |(name, value): (&String, &String)| {
        // Home and temporary files lie where the program starts.
        let value = if *value == start_text { "\"$PWD\"".to_owned() } else { quoted(value) };
        format!("  {}={value} \\\n", quoted(name))
    };
    let words: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    format!(
        "#!/bin/sh
# Runs the program of a stage that failed once more: with the same arguments and environment, in the same folder,
# which is as that attempt left it. Nothing of it gets into the cache.
set -eu
CDPATH='' cd -- \"$(dirname -- \"$0\")\"
cd -- {start}
exec env -i \\
{variables}  {words} </dev/null
",
        start = quoted(&start.strip_prefix(folder).unwrap_or(start).display().to_string()),
        variables = environment.iter().map(variable).collect::<String>(),
        words = words.join(" "),
    )
}
