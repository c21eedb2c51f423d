//! Stage kinds that train target models.
//!
//! `run.rs` is the training itself, whatever is trained; each kind gives it a loss and initial weights.

mod induction_head;
mod initial;
mod resid_mlp;
mod run;
mod tms;
#[cfg(all(test, feature = "cuda"))]
mod twins;

pub use induction_head::TrainInductionHead;
pub use resid_mlp::TrainResidMlp;
pub use tms::TrainTms;
