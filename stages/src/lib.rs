//! The stage kinds of spdflow: target models, decomposition, clustering, comparison, figures.
#![forbid(unsafe_code)]

pub mod artifact;
pub mod bridge;
pub mod cluster;
pub mod compare;
pub mod figure;
pub mod importance;
pub mod matrix;
pub mod pattern;
pub mod plot;
pub mod solution;
#[cfg(test)]
mod testing;
mod threads;
