//! Which instance may be worked on next: the bookkeeping of a run, without any work.
//!
//! An instance is ready when its producers are done; ready ones are handed out in the order of the pipeline, as far
//! as the threads they want are free. A result that is found damaged when a consumer needs it sends its producer
//! back to work, with the consumer waiting again.

use std::collections::BTreeSet;

use crate::event::Outcome;
use crate::pipeline::Pipeline;
use crate::workspace::Known;

/// An instance whose result is in place.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) known: Known,
    pub(crate) fingerprint: spdflow_cache::Digest,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
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
    /// Is being worked on, with this many threads.
    Busy(usize),
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
    ready: BTreeSet<usize>,
    busy: usize,
    free_threads: usize,
    /// Nothing more is handed out.
    pub(crate) is_halted: bool,
}

impl Schedule {
    /// Returns the schedule of the instances that are `members`, some of which are `done` already.
    pub(crate) fn new(pipeline: &Pipeline, members: &[bool], threads: usize, mut done: Vec<Option<Done>>) -> Self {
        let mut schedule = Self {
            states: Vec::with_capacity(members.len()),
            consumers: vec![Vec::new(); members.len()],
            ready: BTreeSet::new(),
            busy: 0,
            free_threads: threads,
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

    /// Hands out the first ready instance whose threads are free; `wanted` says how many it wants.
    pub(crate) fn take(&mut self, wanted: impl Fn(usize) -> usize) -> Option<usize> {
        if self.is_halted {
            return None;
        }
        let free = self.free_threads;
        let index = self.ready.iter().copied().find(|index| wanted(*index) <= free)?;
        let threads = wanted(index);
        self.ready.remove(&index);
        self.busy += 1;
        self.free_threads -= threads;
        self.states[index] = State::Busy(threads);
        Some(index)
    }

    /// Returns whether nothing is or will be handed out.
    pub(crate) fn is_over(&self) -> bool {
        self.busy == 0 && (self.is_halted || self.ready.is_empty())
    }

    fn give_back(&mut self, index: usize) {
        let State::Busy(threads) = self.states[index] else { panic!("instance {index} was not handed out") };
        self.busy -= 1;
        self.free_threads += threads;
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
                            self.ready.remove(&consumer);
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
