//! Worlds of threads with a GPU each, linked by NCCL: N ranks do what one does, and what ranks without NCCL do.

use serde_json::{Value, json};
use spdflow_engine::kind::StopFlag;
use spdflow_engine::ranks::{Channels, World, in_process};

use super::tests::{Watch, assert_agree, nothing, of_the_whole_batch, params, plain, rank_on};
use crate::artifact::metric_log::MetricLog;
use crate::artifact::tensors::Tensor;
use crate::bridge::on_gpu;
use crate::decomposition::config::DecomposeParams;
use crate::decomposition::tests::targets;
use crate::models::TargetConfig;
use crate::testing::only_linked_world;

/// Which GPU each rank takes.
type Choice = fn(usize) -> usize;

const OWN: Choice = |rank| rank;
const THE_SAME: Choice = |_| 0;

/// What a rank makes.
type Made = (Vec<(String, Tensor)>, MetricLog);

/// Few steps, because each is some hundred kernels on an emulated device.
fn short(losses: &Value) -> DecomposeParams {
    params(losses, &json!({ "steps": 6, "log_every": 2, "evaluation": { "every": 3, "batches": 1 } }))
}

/// Runs a world of `size` threads to its end; returns what each rank makes, and its log.
fn ranks(size: usize, choice: Choice, target: &TargetConfig, params: &DecomposeParams) -> Vec<(Made, Vec<String>)> {
    let _alone = only_linked_world();
    let one = |world: Channels| {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let (watch, stop) = (Watch::new((u64::MAX, &nothing)), StopFlag::new());
        let made = on_gpu(choice(world.rank()), |gpu| {
            rank_on(gpu, &world, target, params, scratch.path(), &stop, &watch).expect("a decomposition")
        });
        let made = made.unwrap_or_else(|error| {
            panic!("these tests need three GPUs, or SPDFLOW_EMULATOR_DEVICES=3: {}", error.message)
        });
        (made, watch.log.into_inner().unwrap())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = in_process(size).into_iter().map(|world| scope.spawn(|| one(world))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank")).collect()
    })
}

/// Returns what the ranks make; all of them have this one line in their log, if there are several.
fn made(ranks: Vec<(Made, Vec<String>)>, line: &str) -> Vec<Made> {
    let lines = if ranks.len() == 1 { Vec::new() } else { vec![line.to_owned()] };
    ranks
        .into_iter()
        .map(|(made, log)| {
            assert_eq!(log, lines);
            made
        })
        .collect()
}

/// Returns what a world whose GPUs sum by NCCL makes.
fn by_nccl(size: usize, target: &TargetConfig, params: &DecomposeParams) -> Vec<Made> {
    let version = spdflow_kernels::cuda::nccl::version().expect("these tests need NCCL");
    made(ranks(size, OWN, target, params), &format!("the GPUs of {size} ranks sum by NCCL {version}"))
}

#[test]
fn gpus_that_sum_by_nccl_do_what_one_does() {
    for target in targets().into_iter().take(2) {
        assert_agree(&[2, 3], |size| by_nccl(size, &target, &short(&plain())));
    }
}

#[test]
fn losses_of_the_whole_batch_are_the_same_over_gpus_and_each_time() {
    // Rank 0 alone warms up, so that the others need its parameters.
    let more = json!({ "steps": 6, "log_every": 2, "faithfulness_warmup": { "steps": 5 } });
    let (target, params) = (&targets()[0], &params(&of_the_whole_batch(), &more));
    let made = by_nccl(2, target, params);
    assert_agree(&[2], |size| if size == 2 { made.clone() } else { by_nccl(size, target, params) });
    assert!(by_nccl(2, target, params) == made, "another run has other bits");
}

#[test]
fn ranks_that_share_a_gpu_sum_through_the_host_and_say_so_once() {
    let (target, params) = (&targets()[0], &short(&plain()));
    let line = "gradients of 2 ranks are summed by their processors, not by NCCL: ranks 0 and 1 of 2 have the same GPU; \
                `LOCAL_RANK` gives each rank of a machine its own";
    // A sum of two has one order.
    assert!(made(ranks(2, THE_SAME, target, params), line) == by_nccl(2, target, params));
}
