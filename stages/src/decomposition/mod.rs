//! The decomposition: components, causal importances, losses, and the optimisation that ties them together.
//!
//! A reader follows `kind.rs` (the stage) → `trainer.rs` (the loop) → `step.rs` (one batch) → `model.rs` (clean and masked
//! passes) → `loss/` → `bridge/`.

pub mod causal_importance;
pub mod draws;
pub mod loss;
pub mod model;
pub mod parameters;
pub mod routing;
pub mod schedule;
pub mod site;
pub mod step;
pub mod trainer;
