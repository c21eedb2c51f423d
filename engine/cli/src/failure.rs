//! How a command ends: its exit code and, if it could not do its work, what to tell the user.
//!
//! Every command returns `Result<Exit, Failure>`. The exit codes are a contract with scripts; the table here is the
//! only place that knows the numbers.

use std::fmt;
use std::panic::PanicHookInfo;

use spdflow_engine::diagnostic::{Diagnostic, Report};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything asked for is done.
    Done = 0,
    /// A mistake in spdflow itself.
    Bug = 1,
    /// The command line or the pipeline is wrong; nothing was run.
    Input = 2,
    /// Something is out of date (`status --exit-code`).
    Stale = 3,
    /// A stage failed.
    StageFailed = 4,
    /// Some stages failed, the rest was done (`--keep-going`).
    SomeFailed = 5,
    /// The cache cannot be used or is damaged.
    Cache = 7,
    /// The pipeline is not what its lock file says.
    Drift = 10,
    /// Evidence is incomplete.
    Incomplete = 11,
    /// A result cannot be reproduced.
    NotReproducible = 12,
    /// Something is damaged, or does not follow from what it says it follows from.
    Integrity = 13,
    /// The log of runs, or a signature, is wrong.
    Authenticity = 14,
    /// Something could not be made again.
    CouldNotRun = 15,
    /// Somebody else has another result for the same key.
    Challenge = 16,
    /// Stopped by Ctrl-C, after a checkpoint.
    Interrupted = 130,
    /// Stopped by a termination signal, after a checkpoint.
    Terminated = 143,
}

impl Exit {
    /// Returns the number the process exits with.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What to print.
    pub(crate) report: Report,
}

impl Failure {
    /// Returns a failure with one message and perhaps hints.
    pub(crate) fn new(exit: Exit, diagnostic: impl Into<Diagnostic>) -> Self {
        Self { exit, report: Report::from(diagnostic.into()) }
    }

    /// Returns the failure for a command line that asks for something that does not exist.
    pub(crate) fn input(diagnostic: impl Into<Diagnostic>) -> Self {
        Self::new(Exit::Input, diagnostic)
    }
}

/// A report means that the pipeline is wrong.
impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self { exit: Exit::Input, report }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)
    }
}

/// Makes a panic say that it is our mistake and exit with [`Exit::Bug`], whichever thread it happens on.
pub(crate) fn report_panics_as_bugs() {
    std::panic::set_hook(Box::new(|panic| {
        // A damaged file that makes its reader panic is found to be one; nobody has to hear of the panic.
        if spdflow_stages::formats::is_guarded() {
            return;
        }
        crate::output::message(&panic_text(panic));
        std::process::exit(i32::from(Exit::Bug.code()));
    }));
}

fn panic_text(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("no message");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "error: this is a bug of spdflow, not of your pipeline: {message}\n  at {place}, spdflow {version}\n  \
         hint: finished stages are safe in the cache; please report the command and this message\n"
    )
}
