//! The stage kinds of spdflow: target models, decomposition, clustering, comparison, figures.
#![forbid(unsafe_code)]

mod bridge;
