//! The stage kinds of spdflow: models, decomposition, clustering, comparison, figures.
#![forbid(unsafe_code)]

pub mod artifact;
pub mod cluster;
pub mod compare;
pub mod figure;
pub mod matrix;
pub mod pattern;
pub mod plot;
pub mod solution;
