//! Stage kinds that group components which act together.

pub mod kmeans;
mod stage;

pub use stage::{KMeans, KMeansParams};
