//! `spdflow run --watch`: runs again whenever the pipeline changes.
//!
//! What is watched is what reading the pipeline looks at: the file, its bases, and the code of `command` stages. They
//! are looked at ten times a second, which works on every file system. An edit during a run stops it after a checkpoint
//! and starts again, so that what the edit does not concern continues where it was; an edit that leaves the pipeline
//! wrong lets the run go on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use spdflow_engine::cache::Stamp;
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::executor::local::Local;
use spdflow_engine::kind::StopFlag;
use spdflow_engine::spec;

use super::run;
use crate::args::{OutputArgs, PipelineArgs, RunArgs};
use crate::diagnostics;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::text::{Color, line};
use crate::shipped;
use crate::signals::Signals;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Runs now and after every change, until a signal comes.
pub(super) fn watch(args: &RunArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    if shipped::is_shipped(&args.pipeline.file) {
        let message = format!("`{}` is a shipped pipeline, in which nothing can change", args.pipeline.file);
        let hint = format!("`spdflow new NAME --from {}` makes one of your own", args.pipeline.file);
        return Err(Failure::input(Diagnostic::new(message).hint(hint)));
    }
    let signals = run::listen()?;
    let mut args = args.clone();
    loop {
        let seen = Seen::default();
        let outcome = super::load_from(&args.pipeline, &seen).and_then(|pipeline| {
            let stop = StopFlag::new();
            let known = seen.files();
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| stop_on_edit(&args.pipeline, known, &signals.stop, &stop, &is_over));
                let summary = run::once(&args, style, &pipeline.into(), &signals, stop.clone(), &Local);
                is_over.store(true, Ordering::Release);
                summary
            })
        });
        if let Err(failure) = outcome {
            diagnostics::tell(&failure, style.json, true);
        }
        // What was asked to run again has done so.
        args.selection.force.clear();
        let files = seen.files();
        if changed(&files).is_empty() && !signals.stop.is_raised() {
            let count = files.len();
            let things = if count == 1 { "file" } else { "files" };
            say(style, "watching", files.keys(), "Watching", &format!("{count} {things}; Ctrl-C ends it"));
        }
        let Some(changed) = wait(&files, &signals) else { return Ok(signals.exit()) };
        let names = changed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        say(style, "changed", changed.iter(), "Changed", &names);
    }
}

/// Waits until files have changed and come to rest; returns which, or nothing if a signal came.
fn wait(files: &Files, signals: &Signals) -> Option<Vec<PathBuf>> {
    while !signals.stop.is_raised() {
        let found = changed(files);
        if !found.is_empty() && is_at_rest(files) {
            return Some(found);
        }
        thread::sleep(INTERVAL);
    }
    None
}

/// Asks the run to stop when a signal comes, or when an edit has made another right pipeline.
fn stop_on_edit(pipeline: &PipelineArgs, mut known: Files, signal: &StopFlag, stop: &StopFlag, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        if signal.is_raised() {
            return stop.raise();
        }
        if !changed(&known).is_empty() && is_at_rest(&known) {
            let seen = Seen::default();
            if super::load_from(pipeline, &seen).is_ok() {
                return stop.raise();
            }
            known = seen.files();
        }
        thread::sleep(INTERVAL);
    }
}

/// Tells what the watch does: a line, or an event.
fn say<'p>(style: &OutputArgs, event: &str, files: impl Iterator<Item = &'p PathBuf>, verb: &str, rest: &str) {
    if style.json {
        let files: Vec<_> = files.map(|path| path.display().to_string()).collect();
        output::data(&format!("{}\n", serde_json::json!({ "event": event, "files": files })));
    } else if !style.quiet {
        output::message(&(line(verb, Color::Cyan, rest) + "\n"));
    }
}

/// Files and folders and how they were when they were read; nothing of what is not there.
type Files = BTreeMap<PathBuf, Option<Stamp>>;

fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
}

fn changed(files: &Files) -> Vec<PathBuf> {
    files.iter().filter(|(path, known)| stamp(path) != **known).map(|(path, _)| path.clone()).collect()
}

/// Returns whether nobody is writing: an editor may empty a file, then fill it.
fn is_at_rest(files: &Files) -> bool {
    let now = |files: &Files| files.keys().map(|path| stamp(path)).collect::<Vec<_>>();
    let before = now(files);
    thread::sleep(INTERVAL);
    before == now(files)
}

/// Reads files and remembers which, as they were before.
#[derive(Default)]
struct Seen(RefCell<Files>);

impl Seen {
    fn files(&self) -> Files {
        self.0.borrow().clone()
    }

    fn remember(&self, path: &Path) {
        // The first look counts: what is written after it is a change.
        self.0.borrow_mut().entry(path.to_owned()).or_insert_with(|| stamp(path));
    }
}

impl spec::Files for Seen {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.remember(path);
        shipped::Files.read(path)
    }

    fn read_bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.remember(path);
        shipped::Files.read_bytes(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.remember(path);
        shipped::Files.list(path)
    }
}
