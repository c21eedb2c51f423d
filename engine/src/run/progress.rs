//! What a running stage says: thinned out to ten events a second, and its log written line by line.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use spdflow_cache::Metric;

use crate::event::{Event, Listener};
use crate::kind::ProgressSink;

const EVENT_PAUSE: Duration = Duration::from_millis(100);

/// The [`ProgressSink`] of one attempt of one stage.
pub(crate) struct StageProgress<'a> {
    instance: String,
    listener: &'a dyn Listener,
    log: Mutex<File>,
    resumed: AtomicBool,
    pace: Mutex<Pace>,
}

struct Pace {
    /// When, and at which step, counting began.
    begin: (Instant, u64),
    last_event: Option<Instant>,
}

impl<'a> StageProgress<'a> {
    pub(crate) fn new(instance: String, listener: &'a dyn Listener, log: File) -> Self {
        let pace = Mutex::new(Pace { begin: (Instant::now(), 0), last_event: None });
        Self { instance, listener, log: Mutex::new(log), resumed: AtomicBool::new(false), pace }
    }

    /// Returns whether the stage continued from a checkpoint.
    pub(crate) fn has_resumed(&self) -> bool {
        self.resumed.load(Ordering::Acquire)
    }
}

impl ProgressSink for StageProgress<'_> {
    fn step(&self, step: u64, total: u64, headline: Option<(&str, f64)>) {
        let now = Instant::now();
        let begin = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let is_early = pace.last_event.is_some_and(|last| now.duration_since(last) < EVENT_PAUSE);
            // The last step is always told, so that a bar ends full.
            if is_early && step < total {
                return;
            }
            pace.last_event = Some(now);
            pace.begin
        };
        let seconds = now.duration_since(begin.0).as_secs_f64();
        let done = step.saturating_sub(begin.1);
        let rate = (done > 0 && seconds > 0.0).then(|| done as f64 / seconds);
        self.listener.on_event(&Event::Progress {
            instance: self.instance.clone(),
            step,
            total,
            steps_per_second: rate,
            seconds_left: rate.map(|rate| total.saturating_sub(step) as f64 / rate),
            headline: headline.map(|(name, value)| Metric { name: name.to_owned(), value }),
        });
    }

    fn resumed(&self, step: u64) {
        self.resumed.store(true, Ordering::Release);
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).begin = (Instant::now(), step);
        self.listener.on_event(&Event::Resumed { instance: self.instance.clone(), step });
    }

    fn log(&self, line: &str) {
        // A log line that cannot be written must not fail the work; the result does not depend on it.
        let _ = writeln!(self.log.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
        self.listener.on_event(&Event::Log { instance: self.instance.clone(), line: line.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Steps(Mutex<Vec<u64>>);

    impl Listener for Steps {
        fn on_event(&self, event: &Event) {
            if let Event::Progress { step, .. } = event {
                self.0.lock().unwrap().push(*step);
            }
        }
    }

    #[test]
    fn a_stage_that_reports_every_step_gives_few_events_and_always_the_last() {
        let steps = Steps::default();
        let progress = StageProgress::new("stage".to_owned(), &steps, tempfile::tempfile().unwrap());
        let begin = Instant::now();
        for step in 1..=10_000 {
            progress.step(step, 10_000, Some(("loss", 0.5)));
        }
        let seen = steps.0.lock().unwrap();
        let allowed = 2 + begin.elapsed().as_millis() / EVENT_PAUSE.as_millis();
        assert!(seen.len() as u128 <= allowed, "{} events", seen.len());
        assert_eq!(seen.last(), Some(&10_000));
    }
}
