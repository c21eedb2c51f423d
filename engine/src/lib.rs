//! The engine of spdflow: pipeline text to plan to run.
//!
//! It never prints and knows no tensor: kinds of stages come in through [`kind::Registry`], everything worth telling
//! goes out as events.
#![forbid(unsafe_code)]

pub mod diagnostic;
mod graph;
pub mod kind;
pub mod pipeline;
mod select;
pub mod spec;
pub mod suggest;
pub mod value;
