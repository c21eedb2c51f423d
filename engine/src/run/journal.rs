//! Keeps a run's history in the cache and passes its events on.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use spdflow_cache::{CacheError, RunFolder};

use crate::event::{Event, Listener};
use crate::pipeline::Pipeline;
use crate::plan::Plan;
use crate::run::recipe::source_name;

/// Writes events to the run's journal before it passes them to `listener`.
pub(crate) struct Journal<'a> {
    listener: &'a dyn Listener,
    begin: Instant,
    folder: Mutex<RunFolder>,
    /// The first write that failed; reported when the run ends, since an event cannot fail.
    broken: Mutex<Option<CacheError>>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since the run began.
    at: f64,
    #[serde(flatten)]
    event: &'a Event,
}

#[derive(Serialize)]
struct PlannedLine<'a> {
    instance: String,
    action: &'static str,
    why: &'a str,
    fingerprint: Option<spdflow_cache::Digest>,
}

impl<'a> Journal<'a> {
    pub(crate) fn new(folder: RunFolder, listener: &'a dyn Listener) -> Self {
        Self { listener, begin: Instant::now(), folder: Mutex::new(folder), broken: Mutex::new(None) }
    }

    pub(crate) fn write_plan(&self, pipeline: &Pipeline, plan: &Plan) -> Result<(), CacheError> {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, source) in pipeline.sources.iter().enumerate() {
            folder.write(&source_name(index, &source.name), source.text.as_bytes())?;
        }
        let mut text = Vec::new();
        for step in &plan.steps {
            let line = PlannedLine {
                instance: pipeline.instances[step.index].id.to_string(),
                action: step.action.word(),
                why: &step.why,
                fingerprint: step.fingerprint,
            };
            serde_json::to_writer(&mut text, &line).expect("a plan is plain data");
            text.push(b'\n');
        }
        folder.write("plan.jsonl", &text)
    }

    /// Writes more into the run's folder.
    pub(crate) fn with_folder(
        &self,
        write: impl FnOnce(&RunFolder) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        write(&self.folder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the summary and makes sure that every line of the journal arrived.
    pub(crate) fn finish(self, summary: &Event) -> Result<(), CacheError> {
        let mut folder = self.folder.into_inner().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_string_pretty(summary).expect("an event is plain data") + "\n";
        folder.write("summary.json", text.as_bytes())?;
        folder.flush()?;
        self.broken.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

impl Listener for Journal<'_> {
    fn on_event(&self, event: &Event) {
        // Progress is for those who watch; the history needs no ten lines a second.
        if !matches!(event, Event::Progress { .. } | Event::Log { .. } | Event::Outlook { .. }) {
            let line = Line { at: self.begin.elapsed().as_secs_f64(), event };
            let line = serde_json::to_string(&line).expect("an event is plain data");
            let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
            let mut written = folder.append(&line);
            // A killed run must have told which stages it had begun.
            if written.is_ok() && !matches!(event, Event::Finished { restored: false, .. }) {
                written = folder.flush();
            }
            if let Err(error) = written {
                self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
        self.listener.on_event(event);
    }
}
