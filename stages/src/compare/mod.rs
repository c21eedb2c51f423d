//! Stage kinds that compare two artifacts of one kind.

pub mod similarity;
