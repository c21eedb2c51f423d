//! `replay.sh` in a run's folder: repeats the run from the texts that were recorded there, and compares the results.
//!
//! The script lays the pipeline's files and the code of its commands out as they lay when the run began, relative to
//! one another, sets the variables that the pipeline looks at, and runs it with the arguments of the run and a cache
//! of its own, so that everything is computed anew. `results.lock` is there once the run has all its results; the
//! repetition is then held to it. Every path is relative to the script, so that a copy of the folder works as well.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use spdflow_cache::{BuildInfo, CacheError, RunFolder};

use crate::lock::{Lock, LockedStage};
use crate::pipeline::Pipeline;
use crate::run::recipe::Recipe;
use crate::run::schedule::{Done, State};
use crate::shell::{SCRIPT_START, quoted, with_variables};

/// The script.
const SCRIPT: &str = "replay.sh";
/// The results that it compares with.
const RESULTS: &str = "results.lock";

/// Writes the script, and what it needs, into the folder of a run that is about to begin.
pub(crate) fn write_script(
    folder: &RunFolder,
    pipeline: &Pipeline,
    build: &BuildInfo,
    arguments: &[String],
) -> Result<(), CacheError> {
    let (recipe, bytes) = Recipe::of(pipeline, arguments);
    recipe.write(&bytes, folder)?;
    folder.write_program(SCRIPT, script(folder.id(), build, &recipe).as_bytes())
}

/// Writes down the results of a run that has all of them.
pub(crate) fn write_results(folder: &RunFolder, pipeline: &Pipeline, states: &[State]) -> Result<(), CacheError> {
    let locked = |done: &Done| LockedStage {
        fingerprint: done.fingerprint,
        artifact: done.known.artifact,
        record: None,
        outputs: done.known.files.iter().map(|(path, digest, _)| (path.to_owned(), digest)).collect(),
    };
    let stages = pipeline.instances.iter().zip(states).filter_map(|(instance, state)| match state {
        State::Done(done) | State::Given(done) => Some((instance.id.to_string(), locked(done))),
        _ => None,
    });
    let lock = Lock::new(&pipeline.name, stages.collect());
    folder.write(RESULTS, lock.text().as_bytes())
}

fn script(run: &str, build: &BuildInfo, recipe: &Recipe) -> String {
    let place = |path: &str| Path::new("files").join(path);
    let mut text = format!(
        "#!/bin/sh
# Repeats run {run}, computes everything anew and compares the results with those of the run.
# Written by spdflow {version}, commit {commit}.
#
#   sh {SCRIPT} [OPTION…]                with more options of `spdflow run`, such as `--jobs 4`
#   SPDFLOW=/path/to/spdflow sh {SCRIPT} with another program than the `spdflow` in PATH
#
# It works in the folder `replay` beside this file; delete that to begin from nothing again. It ends with 0 if
# every result has the same bytes, and with 10 if one has not. A run that did not get all its results has nothing to
# compare with.
{SCRIPT_START}",
        version = build.version,
        commit = build.git_commit,
    );
    let mut folder = PathBuf::new();
    for part in &recipe.parts {
        let place = Path::new("replay").join(place(&part.place));
        let above = place.parent().unwrap_or(Path::new("")).to_owned();
        if above != folder {
            let _ = writeln!(text, "mkdir -p {}", quoted(&above.to_string_lossy()));
            folder = above;
        }
        let target = quoted(&place.to_string_lossy());
        let _ = match &part.kept {
            Some(name) => writeln!(text, "cp {} {target}", quoted(name)),
            None => {
                let digest = part.digest;
                let message = format!("put the file with digest {digest} there, which was too large to keep: ");
                writeln!(text, "[ -f {target} ] || {{ echo {}{target} >&2; exit 2; }}", quoted(&message))
            }
        };
    }
    // What is taken from there would not be computed anew, and agree with itself.
    text += "unset SPDFLOW_REMOTE\ncd replay\n";
    let file = place(&recipe.file);
    let words: Vec<String> = recipe.arguments.iter().map(|word| format!(" {}", quoted(word))).collect();
    let _ = writeln!(
        text,
        "set -- run {}{} --cache cache --out out \"$@\"\n[ ! -f ../{RESULTS} ] || set -- \"$@\" --locked --lock-file ../{RESULTS}",
        quoted(&file.to_string_lossy()),
        words.concat(),
    );
    // The values that the pipeline found when it was read are part of its keys.
    text += &with_variables(&recipe.variables, "\"$spdflow\" \"$@\"");
    text
}
