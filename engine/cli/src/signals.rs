//! Ctrl-C and termination: the first asks the stages to save their state and stop, the second ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use spdflow_engine::kind::StopFlag;

use crate::failure::Exit;

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
        let raised = Arc::new(AtomicBool::new(false));
        let is_terminated = Arc::new(AtomicBool::new(false));
        for (signal, exit) in [(SIGINT, Exit::Interrupted), (SIGTERM, Exit::Terminated)] {
            // In this order: the first signal finds the flag down and raises it, the second finds it up and ends us.
            flag::register_conditional_shutdown(signal, i32::from(exit.code()), Arc::clone(&raised))?;
            flag::register(signal, Arc::clone(&raised))?;
        }
        flag::register(SIGTERM, Arc::clone(&is_terminated))?;
        Ok(Self { stop: StopFlag::shared(raised), is_terminated })
    }

    /// Returns the exit code of a run that was stopped.
    pub(crate) fn exit(&self) -> Exit {
        if self.is_terminated.load(Ordering::Acquire) { Exit::Terminated } else { Exit::Interrupted }
    }
}
