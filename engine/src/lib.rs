//! The engine of spdflow: pipeline text to plan to run.
//!
//! It never prints and knows no tensor: kinds of stages come in through [`kind::Registry`], everything worth telling
//! goes out as events.
#![forbid(unsafe_code)]

mod artifact;
pub mod audit;
pub mod bundle;
pub mod capacity;
mod device;
pub mod diagnostic;
pub mod error;
pub mod event;
pub mod executor;
pub mod expectation;
pub mod export;
pub mod fingerprint;
pub mod gather;
mod graph;
pub mod kind;
pub mod lock;
pub mod machine;
mod memory;
mod outputs;
pub mod outside;
pub mod params;
pub mod pipeline;
pub mod plan;
pub mod present;
pub mod program;
pub mod ranks;
pub mod run;
mod select;
pub mod shell;
pub mod size;
pub mod spec;
pub mod suggest;
pub mod sums;
pub mod trace;
pub mod value;
pub mod why;
pub mod workspace;

pub use artifact::MANIFEST;
pub use spdflow_cache as cache;
