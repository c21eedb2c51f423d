//! How long a run will take: its schedule played through with expected durations, without any work.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use crate::capacity::Capacity;
use crate::pipeline::Pipeline;
use crate::run::ready::{Held, ReadyQueue};

/// An instance that runs: when it ends, in microseconds, and what it holds until then.
type Running = (Reverse<u64>, usize);

/// Returns the seconds until the last instance has ended. `left` says for each instance how many seconds of work it
/// still is, nothing if it has ended or is no part of the run; those in `running` are under way.
pub(crate) fn seconds(
    pipeline: &Pipeline,
    capacity: &Capacity,
    urgency: &[u64],
    left: Vec<Option<f64>>,
    running: &[usize],
) -> f64 {
    let demands: Vec<_> = pipeline.instances.iter().map(|instance| capacity.demand(instance)).collect();
    let demand = |index: usize| demands[index];
    let microseconds = |index: usize| (left[index].unwrap_or(0.0) * 1e6) as u64;
    let (mut needs, consumers) = open_needs(pipeline, &left);
    let mut queue = ReadyQueue::new(capacity, urgency.to_vec());
    let mut held: Vec<Option<Held>> = vec![None; left.len()];
    let mut ends: BinaryHeap<Running> = BinaryHeap::new();
    for index in running {
        held[*index] = Some(queue.hold(demand(*index)));
        ends.push((Reverse(microseconds(*index)), *index));
    }
    for index in (0..left.len()).filter(|index| left[*index].is_some() && needs[*index] == 0) {
        if held[index].is_none() {
            queue.insert(index);
        }
    }
    let mut now = 0;
    loop {
        while ends.len() < capacity.jobs
            && let Some((index, taken)) = queue.take(demand)
        {
            held[index] = Some(taken);
            ends.push((Reverse(now + microseconds(index)), index));
        }
        let Some((Reverse(end), index)) = ends.pop() else { return now as f64 / 1e6 };
        now = end;
        if let Some(held) = held[index].take() {
            queue.give_back(&held);
        }
        for consumer in &consumers[index] {
            needs[*consumer] -= 1;
            if needs[*consumer] == 0 {
                queue.insert(*consumer);
            }
        }
    }
}

/// Returns how many producers each instance waits for, and which instances wait for it, among those with work left.
fn open_needs(pipeline: &Pipeline, left: &[Option<f64>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let (mut needs, mut consumers) = (vec![0; left.len()], vec![Vec::new(); left.len()]);
    for index in (0..left.len()).filter(|index| left[*index].is_some()) {
        let parents = pipeline.instances[index].parents().filter(|parent| left[*parent].is_some());
        // An instance may take two artifacts of one producer; it waits for it once.
        let parents: BTreeSet<usize> = parents.collect();
        needs[index] = parents.len();
        for parent in parents {
            consumers[parent].push(index);
        }
    }
    (needs, consumers)
}
