//! Synthetic inputs, and batches of them.

mod batch;
mod distribution;
mod induction;
mod sparse_features;

pub use batch::Batch;
pub use distribution::InputDistribution;
pub use induction::{InductionDraws, InductionSequences, Sequences};
pub use sparse_features::{FeatureDraws, Generation, SparseFeatures};
