//! Runs the stages that several processes can compute on all of them, one such stage at a time, and the others here.

use std::sync::{Mutex, PoisonError};

use super::local::Local;
use super::{ExecutionError, Executor};
use crate::kind::{StageContext, StageError, StageKind, Summary};
use crate::ranks::Leader;
use crate::value::Value;

/// The executor of rank 0.
#[derive(Debug)]
pub struct Ranked {
    /// Held while a stage has the other ranks.
    leader: Mutex<Leader>,
}

impl Ranked {
    /// Returns an executor that has these ranks.
    #[must_use]
    pub fn new(leader: Leader) -> Self {
        Self { leader: Mutex::new(leader) }
    }
}

impl Executor for Ranked {
    fn execute(
        &self,
        kind: &dyn StageKind,
        params: &Value,
        context: &StageContext<'_>,
    ) -> Result<Summary, ExecutionError> {
        if !kind.uses_ranks() {
            return Local.execute(kind, params, context);
        }
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if context.should_stop() {
            return Err(ExecutionError::Stage(StageError::Interrupted));
        }
        let stage = leader.begin(kind.info().name, params, context.inputs).map_err(ExecutionError::Stage)?;
        let result = Local.execute(kind, params, &StageContext { world: &stage, ..*context });
        stage.end(&mut |line| context.progress.log(line));
        result
    }
}
