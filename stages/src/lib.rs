//! The stage kinds of spdflow: target models, decomposition, clustering, comparison, figures.
#![forbid(unsafe_code)]

pub mod artifact;
pub mod bridge;
pub mod data;
pub mod decomposition;
pub mod matrix;
pub mod models;
pub mod pattern;
pub mod purpose;
pub mod solution;
