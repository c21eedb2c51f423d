//! The order of things that need one another, and the cycles that make an order impossible.
//!
//! Works without recursion, so that a chain of a hundred thousand stages is no deeper than one of three.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use petgraph::Direction;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

/// Nodes `0..count` and who needs whom.
#[derive(Debug)]
pub(crate) struct Needs {
    /// An edge leads from what is needed to what needs it.
    graph: DiGraph<(), ()>,
}

impl Needs {
    /// Returns a graph of `count` nodes with no edges.
    pub(crate) fn new(count: usize) -> Self {
        let mut graph = DiGraph::with_capacity(count, count);
        for _ in 0..count {
            graph.add_node(());
        }
        Self { graph }
    }

    /// Says that `consumer` needs `producer`. Saying it twice is no different: looking for an edge that is there already
    /// would make a producer of many consumers slow.
    pub(crate) fn add(&mut self, consumer: usize, producer: usize) {
        self.graph.add_edge(NodeIndex::new(producer), NodeIndex::new(consumer), ());
    }

    /// Returns the nodes with what is needed before what needs it; where that leaves a choice, the smaller first.
    ///
    /// # Errors
    /// One shortest cycle out of every group of nodes that need each other; each node of a cycle needs the next one,
    /// and the last needs the first.
    pub(crate) fn order(&self) -> Result<Vec<usize>, Vec<Vec<usize>>> {
        let mut missing: Vec<usize> = self
            .graph
            .node_indices()
            .map(|node| self.graph.edges_directed(node, Direction::Incoming).count())
            .collect();
        let mut ready: BinaryHeap<Reverse<usize>> =
            (0..missing.len()).filter(|node| missing[*node] == 0).map(Reverse).collect();
        let mut order = Vec::with_capacity(missing.len());
        while let Some(Reverse(node)) = ready.pop() {
            order.push(node);
            for consumer in self.graph.neighbors(NodeIndex::new(node)) {
                missing[consumer.index()] -= 1;
                if missing[consumer.index()] == 0 {
                    ready.push(Reverse(consumer.index()));
                }
            }
        }
        if order.len() == missing.len() { Ok(order) } else { Err(self.cycles()) }
    }

    fn cycles(&self) -> Vec<Vec<usize>> {
        let mut cycles = Vec::new();
        let mut group_of = vec![usize::MAX; self.graph.node_count()];
        for (number, group) in kosaraju_scc(&self.graph).into_iter().enumerate() {
            for node in &group {
                group_of[node.index()] = number;
            }
            let first = group.iter().map(|node| node.index()).min().unwrap_or(0);
            cycles.extend(self.shortest_cycle(first, &group_of));
        }
        cycles.sort();
        cycles
    }

    /// Returns the shortest way from `start` over its needs back to `start`, within its group.
    fn shortest_cycle(&self, start: usize, group_of: &[usize]) -> Option<Vec<usize>> {
        let mut came_from = vec![usize::MAX; group_of.len()];
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            let mut needs: Vec<usize> = self
                .graph
                .neighbors_directed(NodeIndex::new(node), Direction::Incoming)
                .map(NodeIndex::index)
                .collect();
            needs.sort_unstable();
            for need in needs {
                if need == start {
                    let mut cycle = vec![node];
                    while let Some(&last) = cycle.last()
                        && last != start
                    {
                        cycle.push(came_from[last]);
                    }
                    cycle.reverse();
                    return Some(cycle);
                }
                if group_of[need] == group_of[start] && came_from[need] == usize::MAX {
                    came_from[need] = node;
                    queue.push_back(need);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(count: usize, edges: &[(usize, usize)]) -> Needs {
        let mut needs = Needs::new(count);
        for (consumer, producer) in edges {
            needs.add(*consumer, *producer);
        }
        needs
    }

    #[test]
    fn needed_nodes_come_first_and_ties_keep_their_order() {
        assert_eq!(needs(4, &[(0, 3), (1, 3)]).order(), Ok(vec![2, 3, 0, 1]));
        assert_eq!(needs(3, &[]).order(), Ok(vec![0, 1, 2]));
        assert_eq!(needs(0, &[]).order(), Ok(vec![]));
    }

    #[test]
    fn a_need_that_is_told_twice_counts_once() {
        assert_eq!(needs(2, &[(0, 1), (0, 1)]).order(), Ok(vec![1, 0]));
        assert_eq!(needs(2, &[(0, 1), (0, 1), (1, 0)]).order(), Err(vec![vec![0, 1]]));
    }

    #[test]
    fn a_producer_of_a_hundred_thousand_and_their_consumer_are_ordered_at_once() {
        let last = 100_001;
        let fan = (1..last).flat_map(|node| [(node, 0), (last, node)]).collect::<Vec<_>>();
        assert_eq!(needs(last + 1, &fan).order(), Ok((0..=last).collect()));
    }

    #[test]
    fn every_group_yields_its_shortest_cycle() {
        // 1 needs 2 needs 3 needs 1, with the short cut 2 needs 1; 4 needs itself; 0 only depends on a cycle.
        let graph = needs(5, &[(0, 1), (1, 2), (2, 3), (3, 1), (2, 1), (4, 4)]);
        assert_eq!(graph.order(), Err(vec![vec![1, 2], vec![4]]));
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_needs_no_deep_stack() {
        let edges: Vec<_> = (1..100_000).map(|node| (node - 1, node)).collect();
        let order = needs(100_000, &edges).order().expect("no cycle");
        assert_eq!(order, (0..100_000).rev().collect::<Vec<_>>());
        let mut closed = needs(100_000, &edges);
        closed.add(99_999, 0);
        assert_eq!(closed.order().map_err(|cycles| cycles[0].len()), Err(100_000));
    }
}
