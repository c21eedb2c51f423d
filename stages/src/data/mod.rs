//! Synthetic inputs, and batches of them.

mod batch;
mod distribution;
mod induction;
mod labels;
mod sparse_features;

pub use batch::{Batch, parts};
pub use distribution::InputDistribution;
pub use induction::{InductionDraws, InductionSequences, Sequences};
pub use labels::{LabelFunction, Labels};
pub use sparse_features::{FeatureDraws, Generation, SparseFeatures};
