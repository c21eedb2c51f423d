//! The processes that compute one stage together: who they are and how they speak.
//!
//! Rank 0 is the run as ever: it plans, stores and reports. The other ranks help it with the stages that can be divided
//! ([`Kind::USES_RANKS`](crate::kind::Kind::USES_RANKS)): they are handed such a stage with its inputs, do their share,
//! and keep nothing. Messages go between rank 0 and one of the others, never between two of those. The engine carries
//! bytes; what is in them is the stage's affair.

mod channels;
mod connection;
mod follower;
mod greeting;
mod job;
mod leader;
mod meeting;
mod place;

pub use channels::{Channels, in_process};
pub use connection::Connection;
pub use follower::{Follower, FollowerOptions};
pub use greeting::Identity;
pub use leader::Leader;
pub use meeting::{MeetingError, join, lead};
pub use place::{Meeting, Place, PlaceError};

/// The ranks of a stage, seen from one of them.
pub trait World: Send + Sync {
    /// Returns which rank this is, from 0.
    fn rank(&self) -> usize;

    /// Returns how many ranks there are.
    fn size(&self) -> usize;

    /// Sends a message: rank 0 to any other, the others to rank 0.
    ///
    /// # Errors
    /// [`RankError`] if nobody will receive it.
    fn send(&self, to: usize, message: &[u8]) -> Result<(), RankError>;

    /// Waits for the next message: at rank 0 from any other, at the others from rank 0.
    ///
    /// # Errors
    /// [`RankError`] if there will be none.
    fn receive(&self, from: usize) -> Result<Vec<u8>, RankError>;

    /// Returns why a rank that this one speaks with takes no part in the stage any more, if that is so: it is gone or
    /// has ended the stage. Waits for nothing and takes no message; a message that waits to be received is no trouble.
    fn trouble(&self) -> Option<RankError>;
}

/// Why ranks cannot go on together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RankError {
    /// A process ended, or its machine did.
    #[error("rank {rank} of {size} is gone ({why})")]
    Gone {
        /// Which one.
        rank: usize,
        /// How many there were.
        size: usize,
        /// How that was noticed.
        why: String,
    },
    /// A rank could not do its share.
    #[error("rank {rank} of {size} failed: {message}")]
    Failed {
        /// Which one.
        rank: usize,
        /// How many there are.
        size: usize,
        /// What it said.
        message: String,
    },
    /// Rank 0 needs no help with the stage any more.
    #[error("rank 0 has ended the stage")]
    Over,
    /// A message is not the expected one: a mistake of ours.
    #[error("rank {rank} of {size} sent {found} where {expected} was expected")]
    Confused {
        /// Who sent it.
        rank: usize,
        /// How many there are.
        size: usize,
        /// What should have come.
        expected: String,
        /// What came.
        found: String,
    },
}

/// The world of a process that computes alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl World for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&self, to: usize, _: &[u8]) -> Result<(), RankError> {
        panic!("a message to rank {to} in a world of one")
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RankError> {
        panic!("a message from rank {from} in a world of one")
    }

    fn trouble(&self) -> Option<RankError> {
        None
    }
}
