//! Synthetic inputs, and batches of them.

mod batch;
mod labels;
mod sparse_features;

pub use batch::Batch;
pub use labels::{LabelFunction, Labels};
pub use sparse_features::{FeatureDraws, Generation, SparseFeatures};
