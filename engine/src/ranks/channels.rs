//! Ranks that are threads of one process: what many processes do, without a network.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{RankError, World};

/// One rank of [`in_process`]. Dropping it is that rank's end, which the others notice.
#[derive(Debug)]
pub struct Channels {
    rank: usize,
    size: usize,
    /// To and from each of the others that this rank speaks with: all of them at rank 0, else rank 0 alone.
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    out: Sender<Vec<u8>>,
    from: Mutex<Inbox>,
}

#[derive(Debug)]
struct Inbox {
    receiver: Receiver<Vec<u8>>,
    /// A message that was found when nobody wanted to receive it yet.
    early: Option<Vec<u8>>,
}

impl Line {
    fn new(out: Sender<Vec<u8>>, receiver: Receiver<Vec<u8>>) -> Self {
        Self { out, from: Mutex::new(Inbox { receiver, early: None }) }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the other side has ended and nothing of it is left to receive.
    fn is_dead(&self) -> bool {
        let mut inbox = self.inbox();
        if inbox.early.is_some() {
            return false;
        }
        match inbox.receiver.try_recv() {
            Ok(message) => inbox.early = Some(message),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return true,
        }
        false
    }
}

/// Returns the ranks of a world of `size` threads.
///
/// # Panics
/// If `size` is 0.
#[must_use]
pub fn in_process(size: usize) -> Vec<Channels> {
    assert!(size > 0, "a world has a rank");
    let mut leader = Vec::new();
    let mut others = Vec::new();
    for rank in 1..size {
        let ((down, at_other), (up, at_leader)) = (channel(), channel());
        leader.push(Line::new(down, at_leader));
        others.push(Channels { rank, size, lines: vec![Line::new(up, at_other)] });
    }
    std::iter::once(Channels { rank: 0, size, lines: leader }).chain(others).collect()
}

impl Channels {
    fn line(&self, other: usize) -> &Line {
        let is_pair = (self.rank == 0) != (other == 0);
        assert!(is_pair && other < self.size, "ranks {} and {other} of {} do not speak", self.rank, self.size);
        if self.rank == 0 { &self.lines[other - 1] } else { &self.lines[0] }
    }

    fn gone(&self, rank: usize) -> RankError {
        RankError::Gone { rank, size: self.size, why: "its thread ended".to_owned() }
    }
}

impl World for Channels {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn send(&self, to: usize, message: &[u8]) -> Result<(), RankError> {
        self.line(to).out.send(message.to_vec()).map_err(|_| self.gone(to))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RankError> {
        let mut inbox = self.line(from).inbox();
        let early = inbox.early.take();
        early.map_or_else(|| inbox.receiver.recv().map_err(|_| self.gone(from)), Ok)
    }

    fn trouble(&self) -> Option<RankError> {
        let others = if self.rank == 0 { 1..self.size } else { 0..1 };
        others.into_iter().find(|other| self.line(*other).is_dead()).map(|other| self.gone(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_that_ends_is_missed_and_its_last_message_is_not_lost() {
        let mut ranks = in_process(3);
        let (two, one, leader) = (ranks.remove(2), ranks.remove(1), ranks.remove(0));
        leader.send(2, b"down").unwrap();
        assert_eq!(two.receive(0).unwrap(), b"down");
        assert_eq!(leader.trouble(), None);
        one.send(0, b"up").unwrap();
        drop(one);
        assert_eq!(leader.trouble(), None, "what it said is heard first");
        assert_eq!(leader.receive(1).unwrap(), b"up");
        let error = leader.receive(1).unwrap_err();
        assert_eq!(error.to_string(), "rank 1 of 3 is gone (its thread ended)");
        assert_eq!(leader.trouble().unwrap(), error);
        assert_eq!(leader.send(1, b"").unwrap_err(), error);
        drop(leader);
        assert_eq!(two.receive(0).unwrap_err().to_string(), "rank 0 of 3 is gone (its thread ended)");
    }
}
