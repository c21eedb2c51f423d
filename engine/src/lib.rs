//! The engine of spdflow: pipeline text to plan to run.
//!
//! It never prints and knows no tensor: kinds of stages come in through [`kind::Registry`], everything worth telling
//! goes out as events.
#![forbid(unsafe_code)]

mod artifact;
pub mod error;
pub mod event;
pub mod executor;
pub mod fingerprint;
pub mod kind;
pub mod machine;
mod outputs;
pub mod pipeline;
pub mod plan;
pub mod run;
pub mod value;
pub mod workspace;

pub use artifact::MANIFEST;
pub use spdflow_cache as cache;
