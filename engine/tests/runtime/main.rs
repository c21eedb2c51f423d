//! Runs of small pipelines: what runs, what is reused, what survives damage, failure, interruption and company.

mod bundles;
mod crash;
mod damage;
mod failure;
mod remote;
mod reuse;
mod scheduling;
mod support;
mod together;
