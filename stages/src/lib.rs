//! The stage kinds of spdflow: target models, decomposition, clustering, comparison, figures.
#![forbid(unsafe_code)]

pub mod artifact;
pub mod bridge;
pub mod checkpoint;
pub mod cluster;
pub mod collective;
pub mod command;
pub mod compare;
pub mod data;
pub mod decomposition;
pub mod figure;
pub mod formats;
pub mod import;
pub mod importance;
pub mod matrix;
pub mod models;
pub mod optimizer;
pub mod pattern;
pub mod plot;
pub mod purpose;
pub mod solution;
#[cfg(test)]
mod testing;
mod threads;
pub mod train;

use spdflow_engine::kind::Registry;

/// Returns every stage kind of this crate.
#[must_use]
pub fn registry() -> Registry {
    Registry::new()
        .with::<train::TrainTms>()
        .with::<train::TrainInductionHead>()
        .with::<train::TrainResidMlp>()
        .with::<decomposition::DecomposeSpd>()
        .with::<cluster::KMeans<decomposition::LoadedDecomposition>>()
        .with::<compare::Geometry<decomposition::LoadedDecomposition>>()
        .with::<plot::Plot>()
        .with::<command::Command>()
}
