//! `replay.sh` in a run's folder: repeats the run from the texts that were recorded there, and compares the results.
//!
//! The script lays the pipeline's files and the code of its commands out as they lay when the run began, relative to
//! one another, sets the variables that the pipeline looks at, and runs it with the arguments of the run and a cache
//! of its own, so that everything is computed anew. `results.lock` is there once the run has all its results; the
//! repetition is then held to it. Every path is relative to the script, so that a copy of the folder works as well.

use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use spdflow_cache::{BuildInfo, CacheError, Digest, RunFolder};

use crate::lock::{Lock, LockedStage};
use crate::pipeline::Pipeline;
use crate::run::schedule::{Done, State};
use crate::shell::{is_variable, quoted};
use crate::spec::SET_ARGUMENT;

/// The script.
const SCRIPT: &str = "replay.sh";
/// The results that it compares with.
const RESULTS: &str = "results.lock";
/// How many bytes of code are kept with a run: scripts, not data that somebody took for code.
const MOST_CODE_BYTES: usize = 16 << 20;

/// A file that the pipeline was made of.
struct Part {
    /// Where it lay.
    path: PathBuf,
    /// What it is called in the run's folder, or if it was too large for that, its digest.
    kept: Result<String, Digest>,
}

/// Writes the script, and the code that it needs, into the folder of a run that is about to begin.
pub(crate) fn write_script(
    folder: &RunFolder,
    pipeline: &Pipeline,
    build: &BuildInfo,
    arguments: &[String],
) -> Result<(), CacheError> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, source) in pipeline.sources.iter().enumerate().filter(|(_, source)| source.name != SET_ARGUMENT) {
        parts.push(Part { path: absolute(Path::new(&source.name)), kept: Ok(source_name(index, &source.name)) });
    }
    let mut room = MOST_CODE_BYTES;
    for (index, (path, file)) in pipeline.outside.files.iter().enumerate() {
        let path = absolute(path);
        let name = format!("code-{index}-{}", file_name(&path));
        let kept = if file.bytes.len() <= room {
            room -= file.bytes.len();
            folder.write(&name, &file.bytes)?;
            Ok(name)
        } else {
            Err(file.digest)
        };
        parts.push(Part { path, kept });
    }
    folder.write_program(SCRIPT, script(folder.id(), pipeline, build, arguments, &parts).as_bytes())
}

/// Returns what the text of a pipeline's source is called in the run's folder.
pub(crate) fn source_name(index: usize, source: &str) -> String {
    format!("source-{index}-{}", file_name(Path::new(source)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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

fn script(run: &str, pipeline: &Pipeline, build: &BuildInfo, arguments: &[String], parts: &[Part]) -> String {
    let root = common_folder(parts);
    let place = |path: &Path| Path::new("files").join(path.strip_prefix(&root).unwrap_or(path));
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
set -eu
spdflow=${{SPDFLOW:-spdflow}}
case $spdflow in
  /*) ;;
  */*) spdflow=$PWD/$spdflow ;;
esac
CDPATH='' cd -- \"$(dirname -- \"$0\")\"
",
        version = build.version,
        commit = build.git_commit,
    );
    let mut folder = PathBuf::new();
    for part in parts {
        let place = Path::new("replay").join(place(&part.path));
        let above = place.parent().unwrap_or(Path::new("")).to_owned();
        if above != folder {
            let _ = writeln!(text, "mkdir -p {}", quoted(&above.to_string_lossy()));
            folder = above;
        }
        let target = quoted(&place.to_string_lossy());
        let _ = match &part.kept {
            Ok(name) => writeln!(text, "cp {} {target}", quoted(name)),
            Err(digest) => {
                let message = format!("put the file with digest {digest} there, which was too large to keep: ");
                writeln!(text, "[ -f {target} ] || {{ echo {}{target} >&2; exit 2; }}", quoted(&message))
            }
        };
    }
    // What is taken from there would not be computed anew, and agree with itself.
    text += "unset SPDFLOW_REMOTE\ncd replay\n";
    let file = place(&absolute(Path::new(pipeline.sources.first().map_or("", |source| source.name.as_str()))));
    let words: Vec<String> = arguments.iter().map(|word| format!(" {}", quoted(word))).collect();
    let _ = writeln!(
        text,
        "set -- run {}{} --cache cache --out out \"$@\"\n[ ! -f ../{RESULTS} ] || set -- \"$@\" --locked --lock-file ../{RESULTS}",
        quoted(&file.to_string_lossy()),
        words.concat(),
    );
    // The values that the pipeline found when it was read are part of its keys.
    let variables = &pipeline.outside.variables;
    for (name, _) in variables.iter().filter(|(name, value)| value.is_none() && is_variable(name)) {
        let _ = writeln!(text, "unset {name}");
    }
    let set = variables.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    let set: Vec<String> = set.map(|pair| format!("{} ", quoted(&pair))).collect();
    let env = if set.is_empty() { String::new() } else { format!("env {}", set.concat()) };
    let _ = writeln!(text, "exec {env}\"$spdflow\" \"$@\"");
    text
}

/// Returns the deepest folder that all parts lie in.
fn common_folder(parts: &[Part]) -> PathBuf {
    let mut folders = parts.iter().map(|part| part.path.parent().unwrap_or(Path::new("/")).to_owned());
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

    fn part(path: &str) -> Part {
        Part { path: PathBuf::from(path), kept: Ok("x".to_owned()) }
    }

    #[test]
    fn parts_keep_their_places_below_the_deepest_folder_they_share() {
        let folder = |paths: &[&str]| common_folder(&paths.iter().map(|path| part(path)).collect::<Vec<_>>());
        assert_eq!(folder(&["/a/b/p.toml"]), Path::new("/a/b"));
        assert_eq!(folder(&["/a/b/p.toml", "/a/c/d/q.toml"]), Path::new("/a"));
        assert_eq!(folder(&["/a/b/p.toml", "/a/bc/q.toml"]), Path::new("/a"));
        assert_eq!(folder(&["/a/b", "/c/d"]), Path::new("/"));
        assert_eq!(absolute(Path::new("/a/./b/../c/p.toml")), Path::new("/a/c/p.toml"));
    }
}
