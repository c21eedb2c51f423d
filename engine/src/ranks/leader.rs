//! Rank 0's side: hands stages to the other ranks, one at a time, and sends them home at the end.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::connection::{Connection, Tag, reason};
use super::job::Parcel;
use super::{RankError, World};
use crate::kind::{InputArtifact, StageError};
use crate::value::Value;

/// The other ranks, as rank 0 has them. Dropping it sends them home.
#[derive(Debug)]
pub struct Leader {
    /// Those of rank 1, 2, ….
    connections: Vec<Connection>,
    /// The first rank that was found gone: nothing can be done together any more.
    lost: OnceLock<RankError>,
}

impl Leader {
    /// Returns rank 0 of a world with these connections, in the order of the ranks from 1.
    #[must_use]
    pub fn new(connections: Vec<Connection>) -> Self {
        Self { connections, lost: OnceLock::new() }
    }

    /// Returns how many ranks there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.connections.len() + 1
    }

    /// Hands a stage to all ranks and returns the world in which to compute it.
    pub(crate) fn begin(
        &self,
        kind: &str,
        params: &Value,
        inputs: &BTreeMap<String, Vec<InputArtifact>>,
    ) -> Result<Stage<'_>, StageError> {
        if let Some(error) = self.lost.get() {
            return Err(lost(error));
        }
        let parcel = Parcel::new(kind, params, inputs)?;
        let stage = Stage { leader: self, home: Mutex::new(vec![false; self.size()]) };
        for (index, connection) in self.connections.iter().enumerate() {
            if let Err(error) = parcel.send(connection) {
                let error = stage.gone(index + 1, &error);
                stage.end(&mut |_| ());
                return Err(lost(&error));
            }
        }
        Ok(stage)
    }
}

fn lost(error: &RankError) -> StageError {
    StageError::failed_with_hint(error.to_string(), "start all ranks again")
}

impl Drop for Leader {
    fn drop(&mut self) {
        for connection in &self.connections {
            // One that is gone needs no sending home.
            let _ = connection.send(Tag::End, &[]);
        }
    }
}

/// A stage that all ranks compute.
pub(crate) struct Stage<'a> {
    leader: &'a Leader,
    /// Which ranks have ended the stage, or are gone.
    home: Mutex<Vec<bool>>,
}

impl Stage<'_> {
    fn connection(&self, rank: usize) -> &Connection {
        assert!(rank > 0 && rank < self.size(), "rank 0 does not speak with rank {rank} of {}", self.size());
        &self.leader.connections[rank - 1]
    }

    fn gone(&self, rank: usize, error: &io::Error) -> RankError {
        let error = RankError::Gone { rank, size: self.size(), why: reason(error) };
        self.is_home(rank);
        self.leader.lost.get_or_init(|| error.clone());
        error
    }

    fn is_home(&self, rank: usize) {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)[rank] = true;
    }

    /// Ends the stage on all ranks: those in the middle of it leave it. `tell` is told what went wrong on others.
    pub(crate) fn end(self, tell: &mut dyn FnMut(&str)) {
        let home = self.home.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let away: Vec<usize> = (1..self.size()).filter(|rank| !home[*rank]).collect();
        for rank in &away {
            if let Err(error) = self.connection(*rank).send(Tag::Over, &[]) {
                self.gone(*rank, &error);
            }
        }
        for rank in away {
            loop {
                match self.connection(rank).receive() {
                    // What it said before it heard that the stage is over.
                    Ok((tag, _)) if tag != Tag::Done => {}
                    Ok((_, message)) if message.is_empty() => break,
                    Ok((_, message)) => {
                        tell(&format!("rank {rank} of {}: {}", self.size(), String::from_utf8_lossy(&message)));
                        break;
                    }
                    Err(error) => {
                        let error = self.gone(rank, &error);
                        tell(&error.to_string());
                        break;
                    }
                }
            }
        }
    }
}

impl World for Stage<'_> {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        self.leader.size()
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<(), RankError> {
        self.connection(to).send(Tag::Message, message).map_err(|error| self.gone(to, &error))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RankError> {
        let size = self.size();
        match self.connection(from).receive() {
            Ok((Tag::Message, message)) => Ok(message),
            Ok((Tag::Done, message)) => {
                self.is_home(from);
                Err(failed(from, size, &message))
            }
            Ok((tag, _)) => {
                let (expected, found) = ("a message".to_owned(), format!("{tag:?}"));
                Err(RankError::Confused { rank: from, size, expected, found })
            }
            Err(error) => Err(self.gone(from, &error)),
        }
    }

    fn trouble(&self) -> Option<RankError> {
        let home = self.home.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (1..self.size()).filter(|rank| !home[*rank]).find_map(|rank| match self.connection(rank).glance() {
            // It stays there for whoever receives it.
            Ok(Some((Tag::Done, message))) => Some(failed(rank, self.size(), &message)),
            Ok(_) => None,
            Err(error) => Some(self.gone(rank, &error)),
        })
    }
}

/// Returns the error of a rank that said, when it ended the stage, what went wrong.
fn failed(rank: usize, size: usize, message: &[u8]) -> RankError {
    let message = if message.is_empty() { "it ended early".into() } else { String::from_utf8_lossy(message) };
    RankError::Failed { rank, size, message: message.into_owned() }
}
