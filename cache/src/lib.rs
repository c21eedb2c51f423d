//! The content-addressed store of spdflow: bytes by digest, records by fingerprint, locks by flock.
//!
//! [`Cache`] is one folder; `docs/cache-format.md` describes what lies in it. A crash at any instant leaves a miss,
//! never a lie: every file appears whole by a rename, and whatever is read back is checked against its digest.
#![forbid(unsafe_code)]

mod blob;
mod digest;
mod durations;
mod error;
mod gc;
mod index;
mod inspect;
mod lease;
mod look;
mod memo;
pub mod merkle;
mod packed;
mod peek;
mod record;
pub mod remote;
mod run_folder;
mod run_log;
mod shelf;
mod stamp;
mod store;
mod usage;
mod verify;
mod work;

pub use blob::BlobState;
pub use digest::{Digest, ParseDigestError};
pub use durations::Durations;
pub use error::CacheError;
pub use gc::{Class, Collected, Garbage, GarbageClass, Keep};
pub use index::read_index;
pub use inspect::{FileState, RecordState, inspect_file};
pub use lease::{Hold, Lease};
pub use memo::{FolderMemo, FolderState, MemoFile, Memos};
pub use packed::{Packer, Unpacker};
pub use peek::Untrusted;
pub use record::{
    Artifact, BuildInfo, Lookup, MachineInfo, Metric, Output, RECORD_FORMAT, Record, Times, Usage, artifact_digest,
};
pub use run_folder::{RunFolder, RunInfo};
pub use run_log::{EVIDENCE, Evidence, LogEntry, LogLine};
pub use stamp::Stamp;
pub use store::{CACHE_FORMAT, Cache, FOLDERS};
pub use usage::{FolderUsage, KnownResult};
pub use verify::{Problem, Verification};
pub use work::{Attempt, Holder, Work, empty_folder};
