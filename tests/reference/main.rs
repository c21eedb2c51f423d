//! Compares our numbers with the recorded numbers of the reference implementation.
//!
//! Every case is found by its file name in `tests/fixtures/reference`, or in the folder that `SPDFLOW_FIXTURES`
//! names, and carries everything a test needs; so new cases of the same formats run without a line of code.

#[allow(dead_code, reason = "each case file uses another part")]
mod support;

mod ci_fns;
mod compare_models;
mod components;
mod datasets;
mod evaluation;
mod losses;
mod schedules;
mod sigmoids;
mod spd;
mod target_ci;
mod targets;
mod trajectories;
