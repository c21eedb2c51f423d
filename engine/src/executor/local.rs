//! Runs stages in this process, on the calling thread.
//!
//! A panic in a stage must neither end the other stages nor be printed in the middle of a report, so while a stage
//! runs the panic hook is ours: it notes message and place for whoever catches the panic. Panics elsewhere go to
//! the hook that was there before.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use crate::executor::{ExecutionError, Executor};
use crate::kind::{StageContext, StageKind, Summary};
use crate::value::Value;

/// The executor of `--executor local`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;

thread_local! {
    /// `Some` while this thread runs a stage; holds the text of its last panic.
    static STAGE_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The text of the last panic on a thread that helps a stage (a rayon worker), which has no stage of its own.
static HELPER_PANIC: Mutex<Option<String>> = Mutex::new(None);

static STAGES_RUNNING: AtomicUsize = AtomicUsize::new(0);

static HOOK: Once = Once::new();

impl Executor for Local {
    fn execute(
        &self,
        kind: &dyn StageKind,
        params: &Value,
        context: &StageContext<'_>,
    ) -> Result<Summary, ExecutionError> {
        HOOK.call_once(install_hook);
        STAGE_PANIC.set(Some(String::new()));
        STAGES_RUNNING.fetch_add(1, Ordering::AcqRel);
        // Whatever state the panic leaves behind is the stage's own: its folder is emptied before the next attempt.
        let result = panic::catch_unwind(AssertUnwindSafe(|| kind.run(params, context)));
        STAGES_RUNNING.fetch_sub(1, Ordering::AcqRel);
        let noted = STAGE_PANIC.take().filter(|text| !text.is_empty());
        match result {
            Ok(result) => result.map_err(ExecutionError::Stage),
            Err(payload) => {
                let helper = || HELPER_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
                let message = noted.or_else(helper).unwrap_or_else(|| payload_text(&*payload));
                Err(ExecutionError::Panicked { message })
            }
        }
    }
}

fn install_hook() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let is_stage = STAGE_PANIC.with_borrow_mut(|slot| match slot {
            Some(text) => {
                *text = describe(info);
                true
            }
            None => false,
        });
        if is_stage {
            return;
        }
        // A helper's panic comes back to the stage that waits for it. Helpers (rayon's workers) have no name; threads of
        // the engine and of the reports are named.
        if std::thread::current().name().is_none() && STAGES_RUNNING.load(Ordering::Acquire) > 0 {
            *HELPER_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(describe(info));
            return;
        }
        previous(info);
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = payload_text(info.payload());
    match info.location() {
        Some(place) => format!("{message} ({}:{})", place.file(), place.line()),
        None => message,
    }
}

fn payload_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
