//! Which of the ready instances is next, and what of the machine is free.
//!
//! The most urgent one is next; among equals the first of the pipeline. If what is free does not suffice for it, it is
//! waited for: from then on a less urgent one is handed out only if that leaves what is waited for as much of
//! everything as it takes, or takes nothing of what there is too little of. So what ends makes room for the one that
//! is waited for, and never for what came later: a large stage waits no longer than those that ran before it, however
//! many small ones there are.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::capacity::{Capacity, Demand};

/// What an instance that was handed out holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) threads: usize,
    memory_bytes: u64,
    /// Positions in [`Capacity::gpus`].
    pub(crate) gpus: Vec<usize>,
}

/// The ready instances.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    /// The most urgent first.
    ready: BTreeSet<(Reverse<u64>, usize)>,
    /// By instance.
    urgency: Vec<u64>,
    /// The one that is waited for.
    awaited: Option<usize>,
    threads: usize,
    memory_bytes: u64,
    gpus: BTreeSet<usize>,
}

impl ReadyQueue {
    /// Returns an empty queue with everything free. `urgency` of an instance is the time, in any unit, from its start
    /// to the end of the longest chain behind it.
    pub(crate) fn new(capacity: &Capacity, urgency: Vec<u64>) -> Self {
        Self {
            ready: BTreeSet::new(),
            urgency,
            awaited: None,
            threads: capacity.threads,
            memory_bytes: capacity.memory_bytes.unwrap_or(u64::MAX),
            gpus: (0..capacity.gpus.len()).collect(),
        }
    }

    pub(crate) fn insert(&mut self, index: usize) {
        self.ready.insert(self.rank(index));
    }

    /// Takes back an instance that turned out not to be ready.
    pub(crate) fn remove(&mut self, index: usize) {
        self.ready.remove(&self.rank(index));
        self.awaited = self.awaited.filter(|awaited| *awaited != index);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Hands out the next instance, if there is one for which what is free suffices.
    pub(crate) fn take(&mut self, demand: impl Fn(usize) -> Demand) -> Option<(usize, Held)> {
        let first = self.awaited.or_else(|| self.ready.first().map(|(_, index)| *index))?;
        let wanted = demand(first);
        let next = if self.has_room(wanted, Demand::default()) {
            first
        } else {
            self.awaited = Some(first);
            // Each takes a thread, so that there is nothing to look for while none is free.
            if self.threads == 0 {
                return None;
            }
            let others = self.ready.iter().map(|(_, index)| *index).filter(|index| *index != first);
            others.into_iter().find(|index| self.has_room(demand(*index), wanted))?
        };
        self.remove(next);
        Some((next, self.hold(demand(next))))
    }

    /// Takes as much as `demand` says from what is free.
    pub(crate) fn hold(&mut self, demand: Demand) -> Held {
        let gpus: Vec<_> = self.gpus.iter().copied().take(demand.gpus).collect();
        self.gpus.retain(|gpu| !gpus.contains(gpu));
        self.threads -= demand.threads;
        self.memory_bytes -= demand.memory_bytes;
        Held { threads: demand.threads, memory_bytes: demand.memory_bytes, gpus }
    }

    /// Frees what was held.
    pub(crate) fn give_back(&mut self, held: &Held) {
        self.threads += held.threads;
        self.memory_bytes += held.memory_bytes;
        self.gpus.extend(&held.gpus);
    }

    /// Whether what is free suffices for `wanted`, with `kept` left of everything that it takes of.
    fn has_room(&self, wanted: Demand, kept: Demand) -> bool {
        let suffices = |wanted: u64, kept: u64, free: u64| wanted == 0 || wanted.saturating_add(kept) <= free;
        let counts = |wanted: usize, kept: usize, free: usize| suffices(wanted as u64, kept as u64, free as u64);
        counts(wanted.threads, kept.threads, self.threads)
            && suffices(wanted.memory_bytes, kept.memory_bytes, self.memory_bytes)
            && counts(wanted.gpus, kept.gpus, self.gpus.len())
    }

    fn rank(&self, index: usize) -> (Reverse<u64>, usize) {
        (Reverse(self.urgency[index]), index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Gpu;

    fn queue(threads: usize, memory_bytes: u64, gpus: usize, urgency: &[u64]) -> ReadyQueue {
        let gpu = |ordinal: usize| Gpu { id: ordinal.to_string(), ordinal };
        let gpus = (0..gpus).map(gpu).collect();
        let capacity = Capacity { jobs: 8, threads, memory_bytes: Some(memory_bytes), gpus };
        let mut queue = ReadyQueue::new(&capacity, urgency.to_vec());
        (0..urgency.len()).for_each(|index| queue.insert(index));
        queue
    }

    fn demand(threads: usize, memory_bytes: u64, gpus: usize) -> Demand {
        Demand { threads, memory_bytes, gpus }
    }

    #[test]
    fn the_most_urgent_is_next_and_among_equals_the_first_of_the_pipeline() {
        let mut queue = queue(8, 0, 0, &[1, 5, 5, 9]);
        let order: Vec<_> = std::iter::from_fn(|| queue.take(|_| demand(1, 0, 0))).map(|(index, _)| index).collect();
        assert_eq!(order, [3, 1, 2, 0]);
    }

    #[test]
    fn two_at_once_never_hold_the_same_gpu() {
        let mut queue = queue(8, 0, 3, &[3, 2, 1]);
        let wanted = |index: usize| demand(1, 0, [2, 1, 1][index]);
        let (_, two) = queue.take(wanted).expect("three are free");
        let (_, one) = queue.take(wanted).expect("one is free");
        assert_eq!((&two.gpus[..], &one.gpus[..]), (&[0, 1][..], &[2][..]));
        assert_eq!(queue.take(wanted), None);
        queue.give_back(&one);
        assert_eq!(queue.take(wanted).map(|(index, held)| (index, held.gpus)), Some((2, vec![2])));
    }

    #[test]
    fn a_large_stage_is_not_starved_by_many_small_ones() {
        // 0 wants all memory; the others want a little of it, and one always runs when the next is ready.
        let mut queue = queue(100, 8, 0, &[5, 9, 1, 1, 1, 99]);
        let wanted = |index: usize| demand(1, [8, 3, 3, 3, 3, 3][index], 0);
        queue.remove(5);
        let (first, held) = queue.take(wanted).expect("everything is free");
        assert_eq!(first, 1);
        assert_eq!(queue.take(wanted), None, "small ones would take what 0 waits for");
        // What becomes ready later does not come before it either, however urgent.
        queue.insert(5);
        assert_eq!(queue.take(wanted), None);
        queue.give_back(&held);
        assert_eq!(queue.take(wanted).map(|(index, _)| index), Some(0));
    }

    #[test]
    fn what_takes_nothing_of_what_is_waited_for_goes_on() {
        let mut queue = queue(4, 0, 1, &[9, 8, 7, 6, 5]);
        // 0 and 1 want the GPU; 2 wants more threads than may be spared, 3 fewer.
        let wanted = |index: usize| demand([1, 2, 2, 1, 1][index], 0, [1, 1, 0, 0, 0][index]);
        let (_, held) = queue.take(wanted).expect("everything is free");
        assert_eq!(queue.take(wanted).map(|(index, _)| index), Some(3), "2 of 3 threads are kept for 1");
        assert_eq!(queue.take(wanted), None);
        queue.give_back(&held);
        assert_eq!(queue.take(wanted).map(|(index, _)| index), Some(1));
    }
}
