//! What every training here shares: parameters with their AdamW moments, and schedules.

pub mod parameters;
pub mod schedule;
