//! The live lines of a run on a terminal: one for each running stage, and below them one for the whole.
//!
//! Every line is put together when it is drawn, so that times go on between events and a narrower window is noticed.
//! None is longer than the window is wide (`line.rs`), and there are never more of them than it has room for: stages
//! beyond that are only counted.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use spdflow_engine::cache::Metric;
use spdflow_engine::event::Event;

use super::line::{Size, Text, fitted};
use super::text::{Color, line, metric, number, whole_duration};

/// How often the lines are drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// The live lines.
pub(crate) struct Live {
    lines: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they began.
    stages: Vec<(String, Stage)>,
    whole: Option<ProgressBar>,
    progress: Arc<Mutex<Whole>>,
}

struct Stage {
    now: Arc<Mutex<Now>>,
    /// Its line, if there is room for one.
    bar: Option<ProgressBar>,
}

/// What is known of a stage that runs.
struct Now {
    instance: String,
    begin: Instant,
    /// When it is expected to end, seen from `begin`.
    expected_seconds: Option<f64>,
    progress: Option<Progress>,
}

struct Progress {
    step: u64,
    total: u64,
    steps_per_second: Option<f64>,
    seconds_left: Option<f64>,
    headline: Option<Metric>,
    at: Instant,
}

/// What is known of the whole.
#[derive(Default)]
struct Whole {
    total: usize,
    done: usize,
    failed: usize,
    running: usize,
    /// How many seconds were left, and when that was told.
    outlook: Option<(f64, Instant)>,
}

impl Live {
    /// Returns live lines on stderr, none as yet.
    pub(crate) fn new() -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        Self { lines: MultiProgress::with_draw_target(target), state: Mutex::default() }
    }

    /// Takes the live lines away while something is printed, and draws them below that again.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.lines.suspend(print);
    }

    /// Takes note of an event.
    pub(crate) fn note(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::RunStarted { instances, .. } => {
                *locked(&state.progress) = Whole { total: *instances, ..Whole::default() };
            }
            Event::Started { instance, expected_seconds, .. } => self.begin(&mut state, instance, *expected_seconds),
            Event::Progress { instance, step, total, steps_per_second, seconds_left, headline, .. } => {
                if let Some((_, stage)) = state.stages.iter().find(|(name, _)| name == instance) {
                    locked(&stage.now).progress = Some(Progress {
                        step: *step,
                        total: *total,
                        steps_per_second: *steps_per_second,
                        seconds_left: *seconds_left,
                        headline: headline.clone(),
                        at: Instant::now(),
                    });
                }
            }
            Event::Outlook { seconds_left } => locked(&state.progress).outlook = Some((*seconds_left, Instant::now())),
            Event::Finished { instance, .. }
            | Event::Skipped { instance, .. }
            | Event::Interrupted { instance, .. } => {
                self.end(&mut state, instance, false);
            }
            Event::Failed { instance, .. } => self.end(&mut state, instance, true),
            Event::RunFinished { .. } => {
                if let Some(whole) = state.whole.take() {
                    whole.finish_and_clear();
                }
            }
            Event::Waiting { .. }
            | Event::Retrying { .. }
            | Event::Resumed { .. }
            | Event::Fetched { .. }
            | Event::Sent { .. }
            | Event::Log { .. }
            | Event::Warning { .. } => {}
        }
    }

    fn begin(&self, state: &mut State, instance: &str, expected_seconds: Option<f64>) {
        let now = Now { instance: instance.to_owned(), begin: Instant::now(), expected_seconds, progress: None };
        state.stages.push((instance.to_owned(), Stage { now: Arc::new(Mutex::new(now)), bar: None }));
        let mut progress = locked(&state.progress);
        progress.running = state.stages.len();
        let is_alone = progress.total == 1;
        drop(progress);
        // A single stage is the whole.
        if state.whole.is_none() && !is_alone {
            let progress = state.progress.clone();
            state.whole = Some(self.draw(None, move |size| locked(&progress).text(size)));
        }
        self.arrange(state);
    }

    fn end(&self, state: &mut State, instance: &str, has_failed: bool) {
        if let Some(position) = state.stages.iter().position(|(name, _)| name == instance)
            && let Some(bar) = state.stages.remove(position).1.bar
        {
            bar.finish_and_clear();
            self.lines.remove(&bar);
        }
        let mut progress = locked(&state.progress);
        progress.done += 1;
        progress.failed += usize::from(has_failed);
        progress.running = state.stages.len();
        drop(progress);
        self.arrange(state);
    }

    /// Gives lines to as many of the running stages as there is room for.
    fn arrange(&self, state: &mut State) {
        // One row for the whole, and one for what is printed above.
        let room = Size::of(&io::stderr()).rows.saturating_sub(2).max(1);
        let shown = state.stages.iter().filter(|(_, stage)| stage.bar.is_some()).count();
        let without = state.stages.iter_mut().filter(|(_, stage)| stage.bar.is_none());
        for (_, stage) in without.take(room.saturating_sub(shown)) {
            let now = stage.now.clone();
            stage.bar = Some(self.draw(state.whole.as_ref(), move |size| locked(&now).text(size)));
        }
    }

    /// Adds a line, above `below` if there is such a one.
    fn draw(
        &self,
        below: Option<&ProgressBar>,
        text: impl Fn(Size) -> String + Clone + Send + Sync + 'static,
    ) -> ProgressBar {
        // Live lines do not go through `anstream`, which knows whether colours are wanted.
        let is_plain = anstream::AutoStream::choice(&io::stderr()) == anstream::ColorChoice::Never;
        let write = move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let text = text(Size::of(&io::stderr()));
            let text = if is_plain { anstream::adapter::strip_str(&text).to_string() } else { text };
            let _ = out.write_str(&text);
        };
        // No template of ours can be wrong; the default one is as good as none.
        let style = ProgressStyle::with_template("{line}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style.with_key("line", write));
        let bar = match below {
            Some(below) => self.lines.insert_before(below, bar),
            None => self.lines.add(bar),
        };
        bar.enable_steady_tick(TICK);
        bar
    }
}

/// Nothing live stays on the screen, also after an error.
impl Drop for Live {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let bars = state.stages.iter().filter_map(|(_, stage)| stage.bar.as_ref()).chain(&state.whole);
        bars.for_each(ProgressBar::finish_and_clear);
    }
}

impl Now {
    fn text(&self, size: Size) -> String {
        let mut text = Text::new(&self.instance);
        match &self.progress {
            Some(progress) => {
                let since = progress.at.elapsed().as_secs_f64();
                text.push(0, format!("{}/{}", progress.step, progress.total));
                if let Some(rate) = progress.steps_per_second {
                    text.push(2, format!("{} steps/s", number(rate.round())));
                }
                if let Some(seconds) = progress.seconds_left {
                    text.push(1, format!("{} left", whole_duration((seconds - since).max(0.0))));
                }
                if let Some(headline) = &progress.headline {
                    text.push(3, metric(headline));
                }
            }
            // A stage that does not tell how far it is: how long it has been at it, and how long it took before.
            None => {
                let seconds = self.begin.elapsed().as_secs_f64();
                if seconds >= 1.0 {
                    text.push(0, format!("for {}", whole_duration(seconds.floor())));
                }
                if let Some(expected) = self.expected_seconds.filter(|expected| *expected >= 1.0) {
                    text.push(1, format!("about {} in all", whole_duration(expected)));
                }
            }
        }
        line("Running", Color::Cyan, &fitted(&text, size))
    }
}

impl Whole {
    fn text(&self, size: Size) -> String {
        let mut text = Text::new("");
        text.push(0, format!("{}/{} stages", self.done, self.total));
        text.push(2, format!("{} running", self.running));
        if self.failed > 0 {
            text.push(1, format!("{} failed", self.failed));
        }
        if let Some((seconds, told)) = self.outlook {
            let left = seconds - told.elapsed().as_secs_f64();
            // What takes longer than expected does so for a time that nobody knows.
            if left >= 1.0 {
                text.push(1, format!("about {} left", whole_duration(left)));
            }
        }
        line("Progress", Color::Cyan, &fitted(&text, size))
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
