//! Synthetic inputs, and batches of them.

mod batch;
mod sparse_features;

pub use batch::Batch;
pub use sparse_features::{FeatureDraws, Generation, SparseFeatures};
