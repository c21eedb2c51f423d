//! A run's dealings with a remote: a result that is there is taken instead of computed, what was computed is sent.
//!
//! Sending goes on beside the work, on a thread of its own; a run ends when it is done with that. A remote that does not
//! do what is asked costs one warning: the run goes on without it. One that only takes nothing is still read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use spdflow_cache::remote::{Pulled, PushOptions, Pushed, Remote, RemoteError};
use spdflow_cache::{Digest, Record};

use crate::error::RunError;
use crate::event::Event;
use crate::fingerprint::check_key;
use crate::pipeline::Instance;
use crate::run::stage::Session;

/// The remote of a run.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Where results are looked for before they are computed.
    pub remote: Arc<Remote>,
    /// Whether results that were computed stay here.
    pub is_read_only: bool,
}

/// What a run keeps about its remote.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    options: &'a RemoteOptions,
    has_failed: AtomicBool,
    takes_nothing: AtomicBool,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// What is to be sent.
#[derive(Debug, Default)]
struct Queue {
    results: VecDeque<(String, Digest)>,
    is_closed: bool,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(options: &'a RemoteOptions) -> Self {
        let (has_failed, takes_nothing) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { options, has_failed, takes_nothing, queue: Mutex::default(), changed: Condvar::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to send; `None` when nothing more will come.
    fn next(&self) -> Option<(String, Digest)> {
        let mut queue = self.queue();
        loop {
            match queue.results.pop_front() {
                Some(result) => return Some(result),
                None if queue.is_closed => return None,
                None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Lets the sender end when all is sent, also if the work panics.
struct Closing<'a>(&'a Exchange<'a>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.queue().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Session<'_> {
    /// Takes the result of an instance from the remote, and returns whether it was there.
    pub(crate) fn take(&self, instance: &Instance, fingerprint: &Digest) -> Result<bool, RunError> {
        let Some(exchange) = self.exchange.as_ref().filter(|exchange| !exchange.has_failed.load(Ordering::Acquire))
        else {
            return Ok(false);
        };
        let (begin, remote) = (Instant::now(), &exchange.options.remote);
        let check = |record: &Record| {
            check_key(record)?;
            // What the lock file does not say must not get into the cache, where later runs would find it.
            let locked = self.expect_as_locked(instance, *fingerprint, Some(record.artifact.digest));
            locked.map_err(|departure| departure.to_string())
        };
        match remote.pull(self.cache(), fingerprint, &check, &|| self.stop.is_raised()) {
            Ok(Pulled::Taken(_, transfer)) => {
                self.listener.on_event(&Event::Fetched {
                    instance: instance.id.to_string(),
                    remote: remote.url().to_owned(),
                    files: transfer.files,
                    size_bytes: transfer.size_bytes,
                    seconds: begin.elapsed().as_secs_f64(),
                });
                Ok(true)
            }
            Ok(Pulled::Absent) => Ok(false),
            Ok(Pulled::Damaged { object, reason }) => {
                let url = remote.url();
                self.warn(instance, format!("`{object}` of the remote `{url}` is not used: {reason}"));
                Ok(false)
            }
            Err(RemoteError::Cache(error)) => Err(error.into()),
            Err(error) => {
                self.do_without(&exchange.has_failed, &error, "the remote");
                Ok(false)
            }
        }
    }

    /// Lets the result of an instance be sent to the remote.
    pub(crate) fn offer(&self, instance: &Instance, fingerprint: Digest) {
        if let Some(exchange) = self.exchange.as_ref().filter(|exchange| !exchange.options.is_read_only) {
            exchange.queue().results.push_back((instance.id.to_string(), fingerprint));
            exchange.changed.notify_all();
        }
    }

    /// Does `work`, with sending beside it, and returns when both are done.
    pub(crate) fn while_sending<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some(exchange) = self.exchange.as_ref().filter(|exchange| !exchange.options.is_read_only) else {
            return work();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while let Some((instance, fingerprint)) = exchange.next() {
                    self.send(exchange, instance, &fingerprint);
                }
            });
            let _closing = Closing(exchange);
            work()
        })
    }

    fn send(&self, exchange: &Exchange<'_>, instance: String, fingerprint: &Digest) {
        let is_of_no_use =
            [&exchange.has_failed, &exchange.takes_nothing].iter().any(|flag| flag.load(Ordering::Acquire));
        if is_of_no_use || self.stop.is_raised() {
            return;
        }
        let (begin, remote) = (Instant::now(), &exchange.options.remote);
        let warn = |message| self.listener.on_event(&Event::Warning { instance: Some(instance.clone()), message });
        match remote.push(self.cache(), fingerprint, PushOptions::default(), &|| self.stop.is_raised()) {
            Ok(Pushed::Sent(transfer)) => self.listener.on_event(&Event::Sent {
                instance: instance.clone(),
                remote: remote.url().to_owned(),
                files: transfer.files,
                size_bytes: transfer.size_bytes,
                seconds: begin.elapsed().as_secs_f64(),
            }),
            Ok(Pushed::Known) => {}
            Ok(Pushed::Other { artifact }) => warn(format!(
                "the remote `{}` has another result for the same key (artifact {}), which stays there",
                remote.url(),
                artifact.short()
            )),
            Ok(Pushed::Incomplete { reason }) => {
                warn(format!("it was not sent to the remote `{}`: {reason}", remote.url()));
            }
            Err(error) if error.is_of_writing() => {
                self.do_without(&exchange.takes_nothing, &error, "sending results there");
            }
            Err(error) => self.do_without(&exchange.has_failed, &error, "the remote"),
        }
    }

    /// Goes on without `what`, which the flag stands for.
    fn do_without(&self, flag: &AtomicBool, error: &RemoteError, what: &str) {
        let is_first = !flag.swap(true, Ordering::AcqRel);
        if is_first && !matches!(error, RemoteError::Stopped) {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let message = format!("{error}{hint}; the run goes on without {what}");
            self.listener.on_event(&Event::Warning { instance: None, message });
        }
    }
}
