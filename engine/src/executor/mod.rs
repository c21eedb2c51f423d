//! Where stages run. An executor takes one stage with everything it may see and touch, and brings back its summary.

pub mod local;
pub mod ranked;

use crate::kind::{StageContext, StageError, StageKind, Summary};
use crate::value::Value;

/// Runs stages.
pub trait Executor: Send + Sync {
    /// Runs a stage to its end.
    ///
    /// # Errors
    /// [`ExecutionError`] if it did not get there.
    fn execute(
        &self,
        kind: &dyn StageKind,
        params: &Value,
        context: &StageContext<'_>,
    ) -> Result<Summary, ExecutionError>;
}

/// Why a stage did not get to its end.
#[derive(Debug)]
pub enum ExecutionError {
    /// The stage said why.
    Stage(StageError),
    /// The stage panicked: a mistake in our code, not in the user's pipeline.
    Panicked {
        /// The panic's message and place.
        message: String,
    },
}
