//! The decomposition: components, causal importances, losses, and the optimisation that ties them together.
//!
//! A reader follows `kind.rs` (the stage) → `run.rs` (the loop) → `trainer.rs` (one update) → `step.rs` (one batch) →
//! `model.rs` (clean and masked passes) → `loss/` → `bridge/`.

pub mod causal_importance;
pub mod config;
pub mod draws;
pub mod evaluation;
pub mod export;
mod headline;
mod kind;
pub mod loss;
pub mod model;
pub mod probe;
pub mod routing;
pub mod run;
pub mod shard;
pub mod site;
pub mod step;
#[cfg(test)]
mod tests;
mod together;
pub mod trainer;
#[cfg(all(test, feature = "cuda"))]
mod twins;

pub use export::LoadedDecomposition;
pub use kind::DecomposeSpd;
