//! The engine of spdflow: pipeline text to plan to run.
//!
//! It never prints and knows no tensor: kinds of stages come in through [`kind::Registry`], everything worth telling
//! goes out as events.
#![forbid(unsafe_code)]

pub mod kind;
pub mod pipeline;
pub mod value;
