//! What a running stage says: thinned out to ten events a second, and its log written line by line. A stage that works
//! for long also has in its log, now and then, how far it was.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use spdflow_cache::Metric;

use crate::event::{Event, Listener};
use crate::kind::ProgressSink;

const EVENT_PAUSE: Duration = Duration::from_millis(100);

/// How long it takes at least, and at most, until the log says again how far a stage is.
const NOTE_PAUSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

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
    /// When the log says how far the stage is.
    next_note: Instant,
}

impl<'a> StageProgress<'a> {
    pub(crate) fn new(instance: String, listener: &'a dyn Listener, log: File) -> Self {
        let now = Instant::now();
        let pace = Mutex::new(Pace { begin: (now, 0), last_event: None, next_note: now + NOTE_PAUSES.0 });
        Self { instance, listener, log: Mutex::new(log), resumed: AtomicBool::new(false), pace }
    }

    /// Writes a line to the log. One that cannot be written must not fail the work: the result does not depend on it.
    fn write(&self, line: &str) {
        let _ = writeln!(self.log.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
    }

    /// Returns whether the stage continued from a checkpoint.
    pub(crate) fn has_resumed(&self) -> bool {
        self.resumed.load(Ordering::Acquire)
    }
}

impl ProgressSink for StageProgress<'_> {
    fn step(&self, step: u64, total: u64, headline: Option<(&str, f64)>) {
        let now = Instant::now();
        let (begin, is_noted) = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let is_early = pace.last_event.is_some_and(|last| now.duration_since(last) < EVENT_PAUSE);
            // The last step is always told, so that a bar ends full.
            if is_early && step < total {
                return;
            }
            pace.last_event = Some(now);
            let is_noted = now >= pace.next_note && step < total;
            if is_noted {
                pace.next_note = now + note_pause(now.duration_since(pace.begin.0));
            }
            (pace.begin, is_noted)
        };
        let seconds = now.duration_since(begin.0).as_secs_f64();
        let done = step.saturating_sub(begin.1);
        let rate = (done > 0 && seconds > 0.0).then(|| done as f64 / seconds);
        if is_noted {
            let rate = rate.map(|rate| format!(", {rate:.1} steps/s")).unwrap_or_default();
            let headline = headline.map(|(name, value)| format!(", {name} {value:.4e}")).unwrap_or_default();
            self.write(&format!("step {step} of {total}{rate}{headline}"));
        }
        self.listener.on_event(&Event::Progress {
            instance: self.instance.clone(),
            step,
            total,
            steps_per_second: rate,
            seconds_left: rate.map(|rate| total.saturating_sub(step) as f64 / rate),
            headline: headline.map(|(name, value)| Metric { name: name.to_owned(), value }),
            is_noted,
        });
    }

    fn resumed(&self, step: u64) {
        self.resumed.store(true, Ordering::Release);
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).begin = (Instant::now(), step);
        self.listener.on_event(&Event::Resumed { instance: self.instance.clone(), step });
    }

    fn log(&self, line: &str) {
        self.write(line);
        self.listener.on_event(&Event::Log { instance: self.instance.clone(), line: line.to_owned() });
    }
}

/// Returns how long the log waits before it says again how far a stage is that has worked for `elapsed`: a twentieth of
/// that, so that neither an hour nor a week fills pages.
fn note_pause(elapsed: Duration) -> Duration {
    (elapsed / 20).clamp(NOTE_PAUSES.0, NOTE_PAUSES.1)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    /// The steps that were told, and those that were also noted in the log.
    #[derive(Default)]
    struct Steps(Mutex<Vec<u64>>, Mutex<Vec<u64>>);

    impl Listener for Steps {
        fn on_event(&self, event: &Event) {
            if let Event::Progress { step, is_noted, .. } = event {
                self.0.lock().unwrap().push(*step);
                if *is_noted {
                    self.1.lock().unwrap().push(*step);
                }
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
    #[test]
    fn a_stage_that_works_for_long_has_in_its_log_how_far_it_was() {
        let (steps, mut log) = (Steps::default(), tempfile::tempfile().unwrap());
        let progress = StageProgress::new("stage".to_owned(), &steps, log.try_clone().unwrap());
        let hour = Duration::from_secs(3600);
        // As if an hour had gone by.
        progress.pace.lock().unwrap().begin = (Instant::now().checked_sub(hour).unwrap(), 0);
        let go_on = |step| {
            progress.pace.lock().unwrap().last_event = None;
            progress.step(step, 10_000, Some(("loss", 0.5)));
        };
        go_on(3600);
        progress.pace.lock().unwrap().next_note = Instant::now();
        go_on(7200);
        go_on(7201);
        assert!(progress.pace.lock().unwrap().next_note > Instant::now() + Duration::from_secs(170));
        progress.log("done");
        assert_eq!(*steps.0.lock().unwrap(), [3600, 7200, 7201]);
        assert_eq!(*steps.1.lock().unwrap(), [7200]);
        let mut text = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut text).unwrap();
        assert_eq!(text, "step 7200 of 10000, 2.0 steps/s, loss 5.0000e-1\ndone\n");
    }

    #[test]
    fn the_log_of_a_week_is_not_much_longer_than_that_of_a_day() {
        let lines_in = |total: u64| {
            let mut at = Duration::ZERO;
            std::iter::from_fn(|| {
                at += note_pause(at);
                (at < Duration::from_secs(total)).then_some(())
            })
            .count()
        };
        assert_eq!(lines_in(29), 0);
        assert_eq!(lines_in(61), 2);
        assert!((40..60).contains(&lines_in(3600)), "{}", lines_in(3600));
        assert!(lines_in(7 * 24 * 3600) < 1200, "{}", lines_in(7 * 24 * 3600));
    }
}
