//! Worlds of threads: sums in the order of the ranks, failures that are noticed, nobody asked in a world of one.

use spdflow_engine::ranks::{Channels, RankError, in_process};

use super::{Collective, Messages, Ranks};

/// Runs `work` on every rank of a world of `size` threads.
fn on_ranks<T: Send>(size: usize, work: impl Fn(&Ranks<'_>) -> T + Sync) -> Vec<T> {
    let one = |world: Channels| work(&Ranks::new(Messages::new(&world)));
    std::thread::scope(|scope| {
        let threads: Vec<_> = in_process(size).into_iter().map(|world| scope.spawn(|| one(world))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank")).collect()
    })
}

#[test]
fn every_rank_gets_the_sum_in_the_order_of_the_ranks() {
    let sums = on_ranks(3, |ranks| {
        let mut values = [[1e8_f32, 1.0, -1e8][ranks.rank()], ranks.rank() as f32];
        let mut numbers = [[1.0, 1e100, -1e100][ranks.rank()]];
        ranks.sum(&mut values, &mut numbers);
        assert_eq!(ranks.lost(), None);
        (values, numbers)
    });
    // (1e8 + 1) − 1e8 = 0 in f32: 1 is less than half of the distance of its neighbours, 8. (1 + 1e100) − 1e100 = 0.
    assert_eq!(sums, vec![([0.0, 3.0], [0.0]); 3]);
}

#[test]
fn rank_0_is_copied() {
    let copies = on_ranks(4, |ranks| {
        let (mut values, mut numbers) = ([ranks.rank() as f32 + 0.5], [-(ranks.rank() as f64), f64::MAX]);
        ranks.broadcast(&mut values, &mut numbers);
        (values, numbers)
    });
    assert_eq!(copies, vec![([0.5], [-0.0, f64::MAX]); 4]);
}

#[test]
fn a_rank_that_leaves_is_an_error_for_all_others_and_no_hang() {
    let ends = on_ranks(3, |ranks| {
        let mut values = [1.0];
        ranks.sum(&mut values, &mut []);
        assert_eq!(values, [3.0]);
        if ranks.rank() == 2 {
            return String::new();
        }
        ranks.sum(&mut values, &mut []);
        let lost = ranks.lost().expect("somebody left").to_string();
        // Whoever goes on all the same is told nothing else, and waits for nobody.
        ranks.broadcast(&mut values, &mut []);
        assert_eq!(ranks.lost().unwrap().to_string(), lost);
        lost
    });
    let gone = |rank: usize| format!("rank {rank} of 3 is gone (its thread ended)");
    assert_eq!(ends, [gone(2), gone(0), String::new()]);
}

#[test]
fn ranks_that_sum_different_things_are_told_so() {
    let ends = on_ranks(2, |ranks| {
        let mut values = vec![0.0; 3 + ranks.rank()];
        ranks.sum(&mut values, &mut [0.0]);
        ranks.lost().map(ToString::to_string).unwrap_or_default()
    });
    // 8 + 4 · 4 + 8 = 32 bytes.
    assert_eq!(ends[0], "rank 1 of 2 sent 32 bytes where 3 values and 1 numbers was expected");
}

/// A collective of one that nobody may ask.
struct Untouched;

impl Collective for Untouched {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f32], _: &mut [f64]) -> Result<(), RankError> {
        panic!("a world of one sums by itself")
    }

    fn broadcast(&self, _: &mut [f32], _: &mut [f64]) -> Result<(), RankError> {
        panic!("a world of one copies nothing")
    }

    fn trouble(&self) -> Option<RankError> {
        panic!("a world of one misses nobody")
    }
}

#[test]
fn a_world_of_one_makes_no_collective_call() {
    for ranks in [Ranks::new(Untouched), Ranks::alone()] {
        let (mut values, mut numbers) = ([1.5], [2.5]);
        ranks.sum(&mut values, &mut numbers);
        ranks.broadcast(&mut values, &mut numbers);
        ranks.among_devices(|_| panic!("a world of one has one device"));
        assert_eq!((values, numbers, ranks.rank(), ranks.size()), ([1.5], [2.5], 0, 1));
    }
}
