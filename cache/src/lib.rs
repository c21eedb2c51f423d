//! The content-addressed store of spdflow: bytes by digest, records by fingerprint, locks by flock.
#![forbid(unsafe_code)]

mod digest;

pub use digest::{Digest, ParseDigestError};
