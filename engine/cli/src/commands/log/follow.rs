//! Prints logs while they are written: those of stages that run, and of stages that a run which is under way comes to.
//!
//! The run's plan tells which results were in place, its journal which stages begin, with which keys, and how they end.
//! While a stage runs, its log is read from its work folder, which belongs to the next stage as soon as it has ended: so
//! what is read counts only if the folder is still that of the key afterwards, and the rest comes from the record.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use spdflow_engine::cache::{Cache, Digest, RunInfo, Stamp};

use super::{Printer, Wanted, no_log, recorded_log, whole_log};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::report::text::warning;

/// How often is looked for more.
const INTERVAL: Duration = Duration::from_millis(100);

/// What the journal of a run tells, as far as logs are concerned.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    event: String,
    pub(super) instance: Option<String>,
    pub(super) fingerprint: Option<Digest>,
    pipeline: Option<String>,
}

impl Told {
    /// Reads a line of a journal; nothing if it was cut short.
    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// What the plan of a run says of one instance.
#[derive(Debug, Deserialize)]
pub(super) struct Planned {
    pub(super) instance: String,
    action: String,
    pub(super) fingerprint: Option<Digest>,
}

/// Returns the plan in the folder of a run.
pub(super) fn planned(run: &Path) -> Vec<Planned> {
    let text = fs::read_to_string(run.join("plan.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Prints the logs of these stages until all have ended.
pub(super) fn follow(
    cache: &Cache,
    pipeline: &str,
    wanted: Vec<Wanted>,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let mut run = run_under_way(cache, pipeline)?;
    let mut tails: Vec<Tail> = wanted.into_iter().map(Tail::new).collect();
    let positions = tails.iter().enumerate().map(|(position, tail)| (tail.wanted.instance.clone(), position));
    let positions: BTreeMap<String, usize> = positions.collect();
    // The journal does not tell of what was in place before the run.
    for planned in run.iter().flat_map(|run| planned(&run.info.path)).filter(|planned| planned.action == "fresh") {
        if let Some(position) = positions.get(&planned.instance) {
            let tail = &mut tails[*position];
            (tail.state, tail.wanted.fingerprint) = (State::Ended, planned.fingerprint);
        }
    }
    loop {
        // Asked before reading: what was written until then is read.
        let is_over = match &run {
            Some(run) => !run.info.is_under_way()?,
            None => true,
        };
        for told in run.iter_mut().flat_map(Journal::read_on) {
            if let Some(position) = told.instance.as_ref().and_then(|instance| positions.get(instance)) {
                tails[*position].note(&told);
            }
        }
        for tail in &mut tails {
            tail.read_on(cache, printer, is_over)?;
        }
        if tails.iter().all(|tail| tail.state == State::Closed) {
            break;
        }
        thread::sleep(INTERVAL);
    }
    let without: Vec<&Wanted> = tails.iter().filter(|tail| !tail.has_log).map(|tail| &tail.wanted).collect();
    if without.len() == tails.len() {
        return Err(Failure::input(no_log(&without)));
    }
    if !without.is_empty() {
        output::message(&warning(&super::without_log(&without)));
    }
    Ok(Exit::Done)
}

/// Returns the journal of the run of the pipeline that is under way, the last one if there are several.
fn run_under_way(cache: &Cache, pipeline: &str) -> Result<Option<Journal>, Failure> {
    loop {
        let mut is_beginning = false;
        for info in cache.runs()?.into_iter().rev().filter(|run| run.is_running) {
            let mut journal = Journal { path: info.path.join("journal.jsonl"), info, offset: 0 };
            let name = journal.read_on().into_iter().find_map(|told| told.pipeline);
            is_beginning |= name.is_none();
            if name.as_deref() == Some(pipeline) {
                journal.offset = 0;
                return Ok(Some(journal));
            }
        }
        // A run that still plans does not tell whose it is.
        if !is_beginning {
            return Ok(None);
        }
        thread::sleep(INTERVAL);
    }
}

/// The journal of a run, read as far as `offset`.
struct Journal {
    info: RunInfo,
    path: PathBuf,
    offset: u64,
}

impl Journal {
    /// Returns what was told since the last look.
    fn read_on(&mut self) -> Vec<Told> {
        let Ok(bytes) = read_from(&self.path, self.offset) else { return Vec::new() };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        self.offset += whole as u64;
        String::from_utf8_lossy(&bytes[..whole]).lines().filter_map(Told::parse).collect()
    }
}

/// A stage's log, printed as far as `printed`.
struct Tail {
    wanted: Wanted,
    state: State,
    printed: u64,
    has_log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was told of it.
    Unknown,
    /// It runs.
    Running,
    /// It has ended; what it wrote last is not printed.
    Ended,
    /// Everything is printed.
    Closed,
}

impl Tail {
    fn new(wanted: Wanted) -> Self {
        Self { wanted, state: State::Unknown, printed: 0, has_log: false }
    }

    /// Takes note of what the journal tells of the stage.
    fn note(&mut self, told: &Told) {
        match told.event.as_str() {
            "started" => (self.state, self.printed) = (State::Running, 0),
            "finished" | "failed" | "interrupted" | "skipped" => self.state = State::Ended,
            _ => return,
        }
        self.wanted.fingerprint = told.fingerprint.or(self.wanted.fingerprint);
    }

    /// Prints what is new. With `is_over` nothing more will be told.
    fn read_on(&mut self, cache: &Cache, printer: &mut Printer, is_over: bool) -> Result<(), Failure> {
        let Some(fingerprint) = self.wanted.fingerprint else {
            if is_over || self.state == State::Ended {
                self.state = State::Closed;
            }
            return Ok(());
        };
        if self.state == State::Closed {
            return Ok(());
        }
        let is_running = cache.running(&fingerprint)?.is_some();
        if is_running && self.state != State::Ended {
            let path = cache.work_folder(&fingerprint).join("log");
            return self.print_new(&path, printer);
        }
        if self.state == State::Ended || is_over {
            let text = match self.state {
                // What an earlier attempt left does not matter any more.
                State::Ended => recorded_log(cache, &fingerprint)?,
                _ => None,
            };
            let text = if text.is_some() { text } else { whole_log(cache, &fingerprint)? };
            self.has_log = text.is_some();
            let rest = text.unwrap_or_default();
            printer.print(&self.wanted.instance, rest.get(self.printed as usize..).unwrap_or_default())?;
            self.state = State::Closed;
        }
        Ok(())
    }

    /// Prints what was added to the log of a stage that runs.
    fn print_new(&mut self, path: &Path, printer: &mut Printer) -> Result<(), Failure> {
        let Ok(file) = File::open(path) else { return Ok(()) };
        let Ok(mut bytes) = read_on(&file, self.printed) else { return Ok(()) };
        // The folder may have become another stage's in between.
        let stamp = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|metadata| Stamp::of(&metadata).inode);
        if stamp(file.metadata()) != stamp(fs::metadata(path)) {
            return Ok(());
        }
        if printer.is_prefixed {
            bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1));
        }
        self.printed += bytes.len() as u64;
        printer.print(&self.wanted.instance, &bytes)
    }
}

fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    read_on(&File::open(path)?, offset)
}

fn read_on(mut file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
