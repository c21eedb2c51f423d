//! Stage kinds that group components which act together.

pub mod kmeans;
