//! Events as JSON Lines on stdout, for programs.

use spdflow_engine::event::{Event, Listener};

use crate::output;

/// Prints every event as one line; the fields are those of [`Event`].
#[derive(Debug, Default)]
pub(crate) struct JsonReport;

impl Listener for JsonReport {
    fn on_event(&self, event: &Event) {
        // An event holds numbers and text only: serialising it cannot fail.
        let line = serde_json::to_string(event).expect("an event is plain data");
        output::data(&(line + "\n"));
    }
}
