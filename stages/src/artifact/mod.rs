//! The files of an artifact: tensors (safetensors), tables (Parquet), reports (JSON).
//!
//! All writers give equal bytes for equal content: names are sorted, nothing of time, host or path is written.
//! All readers name the file and what is wrong with it.

pub mod ci_table;
pub mod components;
pub mod json;
pub mod metric_log;
pub mod pipeline_style;
pub mod tables;
pub mod tensors;
