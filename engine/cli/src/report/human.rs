//! Events as Cargo-like lines on stderr, with live lines below them on a terminal (`live.rs`).

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::event::{Event, Listener, Outcome};
use spdflow_engine::kind::StopFlag;

use crate::args::OutputArgs;
use crate::diagnostics;
use crate::output;
use crate::report::live::Live;
use crate::report::text::{Color, duration, line, metric, size, warning, whole_duration};

/// Tells a person what happens.
pub(crate) struct HumanReport {
    verbosity: Verbosity,
    live: Option<Live>,
    stop: StopFlag,
    has_told_of_stop: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

impl HumanReport {
    /// Returns a report that speaks as `output` says; `stop` lets it confirm that a signal was heard.
    pub(crate) fn new(output: &OutputArgs, stop: StopFlag) -> Self {
        let verbosity = match (output.quiet, output.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, _) => Verbosity::Verbose,
        };
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_live = verbosity > Verbosity::Quiet && !is_dumb && std::io::stderr().is_terminal();
        let live = is_live.then(Live::new);
        Self { verbosity, live, stop, has_told_of_stop: AtomicBool::new(false) }
    }

    fn say(&self, least: Verbosity, verb: &str, color: Color, rest: &str) {
        if self.verbosity >= least {
            self.print(|| output::message(&(line(verb, color, rest) + "\n")));
        }
    }

    /// Prints above the live lines.
    fn print(&self, print: impl FnOnce()) {
        match &self.live {
            Some(live) => live.suspend(print),
            None => print(),
        }
    }

    fn confirm_stop(&self) {
        if self.stop.is_raised() && !self.has_told_of_stop.swap(true, Ordering::AcqRel) {
            self.say(Verbosity::Normal, "Stopping", Color::Yellow, "saving state; once more ends it at once");
        }
    }
}

impl Listener for HumanReport {
    fn hears_of_fresh(&self) -> bool {
        self.live.is_some() || self.verbosity >= Verbosity::Verbose
    }

    fn on_event(&self, event: &Event) {
        self.confirm_stop();
        if let Some(live) = &self.live {
            live.note(event);
        }
        match event {
            Event::Started { instance, why, .. } => {
                // The live line says the same.
                let least = if self.live.is_some() { Verbosity::Verbose } else { Verbosity::Normal };
                self.say(least, "Running", Color::Cyan, &format!("{instance} ({why})"));
            }
            Event::Fetched { instance, remote, files, size_bytes, .. } => {
                let rest = format!("{instance} from {remote} ({files} files, {})", size(*size_bytes));
                self.say(Verbosity::Verbose, "Fetched", Color::Green, &rest);
            }
            Event::Sent { instance, remote, files, size_bytes, .. } => {
                let rest = format!("{instance} to {remote} ({files} files, {})", size(*size_bytes));
                self.say(Verbosity::Verbose, "Sent", Color::Green, &rest);
            }
            Event::Resumed { instance, step } => {
                let rest = format!("{instance} from step {step}");
                self.say(Verbosity::Normal, "Resuming", Color::Cyan, &rest);
            }
            Event::Retrying { instance, retry, retries, message } => {
                let rest = format!("{instance}, {retry} of {retries}: {message}");
                self.say(Verbosity::Normal, "Retrying", Color::Yellow, &rest);
            }
            Event::Waiting { instance, process } => {
                let who = process.map_or("another process".to_owned(), |process| format!("process {process}"));
                let rest = format!("for {instance}, which {who} is computing");
                self.say(Verbosity::Normal, "Waiting", Color::Yellow, &rest);
            }
            Event::Log { instance, line } => {
                self.say(Verbosity::Verbose, "Log", Color::Cyan, &format!("{instance}: {line}"));
            }
            Event::Finished { instance, outcome, restored, seconds, headline, .. } => {
                let result = headline.as_ref().map(|headline| format!(", {}", metric(headline))).unwrap_or_default();
                let (least, verb, rest) = match (outcome, restored) {
                    (Outcome::Ran, _) => {
                        (Verbosity::Normal, "Ran", format!("{instance} in {}{result}", duration(*seconds)))
                    }
                    (Outcome::Resumed, _) => {
                        (Verbosity::Normal, "Resumed", format!("{instance}, {} more{result}", duration(*seconds)))
                    }
                    (Outcome::Cutoff, _) => {
                        (Verbosity::Normal, "Cutoff", format!("{instance}: its inputs are the same bytes as before"))
                    }
                    (_, true) => (Verbosity::Normal, "Restored", format!("{instance}{result}")),
                    (_, false) => (Verbosity::Verbose, "Fresh", format!("{instance}{result}")),
                };
                self.say(least, verb, Color::Green, &rest);
            }
            Event::Interrupted { instance, .. } => {
                self.say(Verbosity::Normal, "Interrupted", Color::Yellow, &format!("{instance}, its state is saved"));
            }
            Event::Skipped { instance, because } => {
                let why = because.as_ref().map(|failed| format!(", which needs {failed}")).unwrap_or_default();
                self.say(Verbosity::Verbose, "Skipped", Color::Yellow, &format!("{instance}{why}"));
            }
            Event::Warning { instance, message } => {
                let who = instance.as_ref().map(|instance| format!("`{instance}`: ")).unwrap_or_default();
                if self.verbosity >= Verbosity::Normal {
                    self.print(|| output::message(&warning(&format!("{who}{message}"))));
                }
            }
            Event::Failed { instance, message, hint, is_bug, log, .. } => {
                let diagnostic = failure(instance, message, hint.as_deref(), *is_bug, log.as_deref());
                // Also when quiet: an error is never held back.
                self.print(|| diagnostics::print(&diagnostic.into()));
            }
            Event::Progress { instance, step, total, steps_per_second, seconds_left, headline, is_noted } => {
                // The live line says the same.
                if *is_noted && self.live.is_none() {
                    let rate = steps_per_second.map(|rate| format!(", {rate:.1} steps/s"));
                    let left = seconds_left.map(|seconds| format!(", {} left", whole_duration(seconds)));
                    let headline = headline.as_ref().map(|headline| format!(", {}", metric(headline)));
                    let rest: String = [rate, left, headline].into_iter().flatten().collect();
                    let rest = format!("{instance} {step}/{total}{rest}");
                    self.say(Verbosity::Normal, "Progress", Color::Cyan, &rest);
                }
            }
            // The live lines say it.
            Event::RunStarted { .. } | Event::RunFinished { .. } | Event::Outlook { .. } => {}
        }
    }
}

fn failure(instance: &str, message: &str, hint: Option<&str>, is_bug: bool, log: Option<&str>) -> Diagnostic {
    let text = if is_bug {
        format!("stage `{instance}` failed by a bug of spdflow: {message}")
    } else {
        format!("stage `{instance}` failed: {message}")
    };
    let report = is_bug.then_some("please report the command and this message");
    Diagnostic::new(text)
        .hint_if_any(hint)
        .hint_if_any(report)
        .hint_if_any(log.map(|path| format!("its log is `{path}`")))
}
