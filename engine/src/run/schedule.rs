//! Which instance may be worked on next: the bookkeeping of a run, without any work.
//!
//! An instance is ready when its producers are done; `ready.rs` chooses among the ready ones. A result that is found
//! damaged when a consumer needs it sends its producer back to work, with the consumer waiting again.

use std::collections::BTreeSet;

use spdflow_cache::Digest;

use crate::capacity::{Capacity, Demand};
use crate::event::Outcome;
use crate::pipeline::Pipeline;
use crate::run::ready::{Held, ReadyQueue};
use crate::workspace::Known;

/// An instance whose result is in place.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) known: Known,
    pub(crate) fingerprint: Digest,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
}

impl Done {
    /// Returns what is known of a result that nobody has to work for.
    pub(crate) fn found(known: Known, fingerprint: Digest) -> Self {
        Self { known, fingerprint, outcome: Outcome::Cached, seconds: 0.0 }
    }
}

/// Where one instance stands.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Not part of this run.
    OutOfScope,
    /// Not part of this run, but its result is known and used.
    Given(Done),
    /// Waits for this many producers.
    Waiting(usize),
    /// May be worked on.
    Ready,
    /// Is being worked on.
    Busy(Held),
    /// Has its result.
    Done(Done),
    /// Ended without a result.
    Ended(Outcome, f64),
}

/// The bookkeeping of a run.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) states: Vec<State>,
    consumers: Vec<Vec<usize>>,
    ready: ReadyQueue,
    /// What each instance takes.
    demands: Vec<Demand>,
    busy: usize,
    /// Nothing more is handed out.
    pub(crate) is_halted: bool,
}

impl Schedule {
    /// Returns the schedule of the instances that are `members`, some of which are `done` already.
    pub(crate) fn new(
        pipeline: &Pipeline,
        members: &[bool],
        capacity: &Capacity,
        urgency: Vec<u64>,
        mut done: Vec<Option<Done>>,
    ) -> Self {
        let mut schedule = Self {
            states: Vec::with_capacity(members.len()),
            consumers: vec![Vec::new(); members.len()],
            ready: ReadyQueue::new(capacity, urgency),
            demands: pipeline.instances.iter().map(|instance| capacity.demand(instance)).collect(),
            busy: 0,
            is_halted: false,
        };
        for (index, instance) in pipeline.instances.iter().enumerate() {
            let state = if !members[index] {
                done[index].take().map_or(State::OutOfScope, State::Given)
            } else if let Some(done) = done[index].take() {
                State::Done(done)
            } else {
                // An instance may take two artifacts of one producer; it waits for it once.
                let parents: BTreeSet<_> = instance.parents().collect();
                for parent in &parents {
                    schedule.consumers[*parent].push(index);
                }
                match parents.iter().filter(|parent| !schedule.is_done(**parent)).count() {
                    0 => State::Ready,
                    open => State::Waiting(open),
                }
            };
            if matches!(state, State::Ready) {
                schedule.ready.insert(index);
            }
            schedule.states.push(state);
        }
        schedule
    }

    /// Returns the result of an instance that has one.
    pub(crate) fn done(&self, index: usize) -> Option<&Done> {
        match &self.states[index] {
            State::Done(done) | State::Given(done) => Some(done),
            _ => None,
        }
    }

    fn is_done(&self, index: usize) -> bool {
        matches!(self.states[index], State::Done(_) | State::Given(_))
    }

    /// Hands out the next ready instance for which what is free suffices.
    pub(crate) fn take(&mut self) -> Option<(usize, Held)> {
        if self.is_halted {
            return None;
        }
        let (index, held) = self.ready.take(|index| self.demands[index])?;
        self.busy += 1;
        self.states[index] = State::Busy(held.clone());
        Some((index, held))
    }

    /// Returns whether nothing is or will be handed out.
    pub(crate) fn is_over(&self) -> bool {
        self.busy == 0 && (self.is_halted || self.ready.is_empty())
    }

    fn give_back(&mut self, index: usize) {
        let State::Busy(held) = &self.states[index] else { panic!("instance {index} was not handed out") };
        self.busy -= 1;
        self.ready.give_back(held);
    }

    /// Notes a result and makes its consumers ready that waited for nothing else.
    pub(crate) fn finish(&mut self, index: usize, done: Done) {
        self.give_back(index);
        self.states[index] = State::Done(done);
        for position in 0..self.consumers[index].len() {
            let consumer = self.consumers[index][position];
            if let State::Waiting(open) = &mut self.states[consumer] {
                *open -= 1;
                if *open == 0 {
                    self.states[consumer] = State::Ready;
                    self.ready.insert(consumer);
                }
            }
        }
    }

    /// Notes that an instance ended without a result; returns its descendants, which are skipped with it.
    pub(crate) fn end(&mut self, index: usize, outcome: Outcome, seconds: f64) -> Vec<usize> {
        self.give_back(index);
        self.states[index] = State::Ended(outcome, seconds);
        let mut skipped = BTreeSet::new();
        let mut open = vec![index];
        while let Some(producer) = open.pop() {
            for consumer in &self.consumers[producer] {
                if matches!(self.states[*consumer], State::Waiting(_)) {
                    self.states[*consumer] = State::Ended(Outcome::Skipped, 0.0);
                    skipped.insert(*consumer);
                    open.push(*consumer);
                }
            }
        }
        skipped.into_iter().collect()
    }

    /// Sends `producers`, whose results turned out to be lost, back to work and lets `index` wait for them.
    pub(crate) fn redo(&mut self, index: usize, producers: &BTreeSet<usize>) {
        self.give_back(index);
        let mut open = 0;
        for producer in producers {
            // Another consumer may have noticed before us: then the producer is already under way, or done again.
            if self.is_done(*producer) {
                self.states[*producer] = State::Ready;
                self.ready.insert(*producer);
                for position in 0..self.consumers[*producer].len() {
                    let consumer = self.consumers[*producer][position];
                    match &mut self.states[consumer] {
                        State::Waiting(open) => *open += 1,
                        State::Ready => {
                            self.ready.remove(consumer);
                            self.states[consumer] = State::Waiting(1);
                        }
                        _ => {}
                    }
                }
            }
            if !self.consumers[*producer].contains(&index) {
                self.consumers[*producer].push(index);
            }
            open += 1;
        }
        self.states[index] = State::Waiting(open);
    }
}
