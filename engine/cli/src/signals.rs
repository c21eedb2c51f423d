//! Ctrl-C and termination: the first asks the stages to save their state and stop, a second one ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator;
use spdflow_engine::kind::StopFlag;

use crate::failure::Exit;

/// Signals this soon after the first are the same wish: `timeout` and some terminals signal a process and its group.
const SAME_WISH: Duration = Duration::from_millis(500);

/// The signals of one run.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    /// Up as soon as either signal came.
    pub(crate) stop: StopFlag,
    is_terminated: Arc<AtomicBool>,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// What the system said when it refused.
    pub(crate) fn listen() -> io::Result<Self> {
        let ours = Self { stop: StopFlag::new(), is_terminated: Arc::default() };
        let mut incoming = iterator::Signals::new([SIGINT, SIGTERM])?;
        let theirs = ours.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut first: Option<Instant> = None;
            for signal in incoming.forever() {
                theirs.is_terminated.fetch_or(signal == SIGTERM, Ordering::AcqRel);
                theirs.stop.raise();
                if first.get_or_insert_with(Instant::now).elapsed() > SAME_WISH {
                    std::process::exit(i32::from(theirs.exit().code()));
                }
            }
        })?;
        Ok(ours)
    }

    /// Returns the exit code of a run that was stopped.
    pub(crate) fn exit(&self) -> Exit {
        if self.is_terminated.load(Ordering::Acquire) { Exit::Terminated } else { Exit::Interrupted }
    }
}
