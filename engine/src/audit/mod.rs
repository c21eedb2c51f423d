//! The audit: proves from the cache that a result follows from its inputs, or says where it does not.

pub mod format;
