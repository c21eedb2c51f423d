//! What ranks tell each other before they work together: every bit of a result depends on it.

use serde::{Deserialize, Serialize};

use super::place::Place;

/// The longest greeting that is read.
pub(super) const LONGEST: u64 = 1 << 16;

/// Goes up when ranks of one version would not understand those of another.
const PROTOCOL: u32 = 1;

/// The program and the machine of a rank, as far as results depend on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The program: version, commit, dependencies.
    pub program: String,
    /// Where it computes: `cpu` or `cuda`.
    pub device: String,
    /// What its processor can do.
    pub processor: String,
}

/// How another rank introduces itself to rank 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    protocol: u32,
    pub(super) rank: usize,
    size: usize,
    session: String,
    identity: Identity,
}

/// What rank 0 answers, when all have come or one does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Why they do not work together.
    pub(super) refusal: Option<String>,
}

impl Greeting {
    pub(super) fn new(place: &Place, session: &str, identity: &Identity) -> Self {
        let (rank, size) = (place.rank, place.size);
        Self { protocol: PROTOCOL, rank, size, session: session.to_owned(), identity: identity.clone() }
    }

    /// Returns whether this is a rank of the same run, whatever else it is.
    pub(super) fn is_of(&self, leader: &Self) -> bool {
        self.session == leader.session
    }

    /// Returns why this rank cannot work with rank 0.
    pub(super) fn misfit(&self, leader: &Self) -> Option<String> {
        let Self { rank, size, identity, .. } = self;
        let ours = &leader.identity;
        let differs =
            |what: &str, theirs: &str, ours: &str| Some(format!("rank {rank} {what} {theirs}, rank 0 {what} {ours}"));
        if *size != leader.size {
            return differs("has a world of", &size.to_string(), &leader.size.to_string());
        }
        if *rank == 0 || rank >= size {
            return Some(format!("rank {rank} of {size} introduced itself to rank 0"));
        }
        if identity.program != ours.program || self.protocol != leader.protocol {
            return differs("is", &identity.program, &ours.program);
        }
        if identity.device != ours.device {
            return differs("computes on", &identity.device, &ours.device);
        }
        if identity.processor != ours.processor {
            return differs("has a processor with", &identity.processor, &ours.processor);
        }
        None
    }
}
