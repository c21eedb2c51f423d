//! Everything the outside may know about a run while it happens.
//!
//! The engine tells a [`Listener`]; the human report, the JSON stream and the journal are listeners. Field names are
//! the JSON schema of `run --json`, whose version is [`EVENT_SCHEMA`].

use serde::Serialize;
use spdflow_cache::{Digest, Metric};

/// The version of the event stream's schema: goes up when a field changes its meaning or goes away.
pub const EVENT_SCHEMA: u32 = 1;

/// Something that happened in a run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins; the plan is made.
    RunStarted {
        /// [`EVENT_SCHEMA`].
        schema: u32,
        /// The run's id in the cache.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// How many instances are in scope.
        instances: usize,
        /// How many of them the plan found in place.
        fresh: usize,
        /// Where the results appear.
        out: String,
        /// The cache.
        cache: String,
    },
    /// How long the rest is expected to take; told now and then if durations are known from earlier runs.
    Outlook {
        /// Until the run is over.
        seconds_left: f64,
    },
    /// Something the user should know although the run goes on.
    Warning {
        /// The instance it is about, if it is about one.
        instance: Option<String>,
        /// What happened.
        message: String,
    },
    /// Another process computes the same thing; its result will be used.
    Waiting {
        /// The instance that waits.
        instance: String,
        /// The other process, if known.
        process: Option<u32>,
    },
    /// A result was taken from the remote; that it is in place is told by `finished`.
    Fetched {
        /// The instance.
        instance: String,
        /// The URL of the remote.
        remote: String,
        /// How many files had to be carried over.
        files: usize,
        /// Their bytes.
        size_bytes: u64,
        /// How long it took.
        seconds: f64,
    },
    /// A result was sent to the remote.
    Sent {
        /// The instance.
        instance: String,
        /// The URL of the remote.
        remote: String,
        /// How many files had to be carried over.
        files: usize,
        /// Their bytes.
        size_bytes: u64,
        /// How long it took.
        seconds: f64,
    },
    /// A stage begins to run.
    Started {
        /// The instance.
        instance: String,
        /// Its kind.
        kind: String,
        /// Its fingerprint.
        fingerprint: Digest,
        /// Why it is not taken from the cache.
        why: String,
        /// How many earlier attempts were cut short.
        earlier_attempts: u32,
        /// How long it will run, if that is known from earlier runs.
        expected_seconds: Option<f64>,
    },
    /// A stage failed and is tried again.
    Retrying {
        /// The instance.
        instance: String,
        /// Which retry begins, from 1.
        retry: u32,
        /// How many there may be.
        retries: u32,
        /// What went wrong.
        message: String,
    },
    /// A stage continues from a checkpoint.
    Resumed {
        /// The instance.
        instance: String,
        /// The step of the checkpoint.
        step: u64,
    },
    /// A stage is so far; at most ten a second for each stage.
    Progress {
        /// The instance.
        instance: String,
        /// Steps done.
        step: u64,
        /// Steps in all.
        total: u64,
        /// Steps per second since the stage began or resumed.
        steps_per_second: Option<f64>,
        /// Seconds until it is done, at that rate.
        seconds_left: Option<f64>,
        /// A number worth watching.
        headline: Option<Metric>,
        /// Whether the stage's log says so too: after half a minute, then at growing intervals.
        is_noted: bool,
    },
    /// A stage wrote a line to its log.
    Log {
        /// The instance.
        instance: String,
        /// The line.
        line: String,
    },
    /// An instance's result is in place.
    Finished {
        /// The instance.
        instance: String,
        /// How it got there: `cached`, `ran`, `resumed` or `cutoff`.
        outcome: Outcome,
        /// Whether files had to be put in place; false for an output that was there already.
        restored: bool,
        /// How long it took, running and waiting.
        seconds: f64,
        /// Its fingerprint.
        fingerprint: Digest,
        /// The digest of the artifact.
        artifact: Digest,
        /// The first of its metrics.
        headline: Option<Metric>,
        /// Where the artifact lies.
        path: String,
    },
    /// A stage failed.
    Failed {
        /// The instance.
        instance: String,
        /// What went wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// Whether it is a mistake of spdflow rather than of the pipeline or the machine.
        is_bug: bool,
        /// The stage's log, if it wrote one.
        log: Option<String>,
        /// How long it ran.
        seconds: f64,
    },
    /// A stage saved its state and stopped, as asked.
    Interrupted {
        /// The instance.
        instance: String,
        /// How long it ran.
        seconds: f64,
    },
    /// A stage was not tried.
    Skipped {
        /// The instance.
        instance: String,
        /// The failed instance it needs, if that is why; else the run was stopped before its turn.
        because: Option<String>,
    },
    /// The run is over; everything reported as finished is safe on disk.
    RunFinished {
        /// The run's id.
        run: String,
        /// How it ended: `done`, `failed`, `some_failed` or `interrupted`.
        status: RunStatus,
        /// How many instances ended how.
        counts: std::collections::BTreeMap<Outcome, usize>,
        /// How long it took.
        seconds: f64,
    },
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its result was known.
    Cached,
    /// It ran from the beginning.
    Ran,
    /// It ran on from a checkpoint.
    Resumed,
    /// Something it depends on ran again and made the same bytes as before.
    Cutoff,
    /// It failed.
    Failed,
    /// It was not tried.
    Skipped,
    /// It was stopped and will go on with the next run.
    Interrupted,
}

impl Outcome {
    /// Returns the word used in tables and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Ran => "ran",
            Self::Resumed => "resumed",
            Self::Cutoff => "cutoff",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }

    /// Returns whether the instance's stage was executed to its end.
    #[must_use]
    pub fn has_run(self) -> bool {
        matches!(self, Self::Ran | Self::Resumed)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Every instance in scope has its result.
    Done,
    /// A stage failed.
    Failed,
    /// Stages failed and everything that does not depend on them was done.
    SomeFailed,
    /// The user stopped it.
    Interrupted,
}

/// Somebody who wants to know.
pub trait Listener: Send + Sync {
    /// Takes note of an event. Called from several threads, one event at a time for each instance.
    fn on_event(&self, event: &Event);

    /// Returns whether it wants an event for each result that was in place before the run: there may be thousands.
    fn hears_of_fresh(&self) -> bool {
        true
    }
}

/// Takes no notice.
impl Listener for () {
    fn on_event(&self, _event: &Event) {}

    fn hears_of_fresh(&self) -> bool {
        false
    }
}
