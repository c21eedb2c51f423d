//! The binary with `--device cuda`: alone, and as ranks with a GPU each that sum by NCCL.
//!
//! In builds with NCCL, which run on the emulated devices of stages/kernels/cuda, or on two GPUs.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::Bench;
use crate::support::ranks::{ONE, RUN, Watched, end, event, numbers, rank, start};
use crate::support::runs::{PIPELINE, bench, results, signal};

const ON_GPU: [&str; 3] = [ONE, "--device", "cuda"];

/// Returns one of two ranks on GPUs.
fn on_gpu(bench: &Bench, number: usize, more: &[&str]) -> Command {
    let mut command = rank(bench, number, 2, &[&ON_GPU, more].concat());
    // Nothing but the connection of the ranks tells that one is dead.
    command.env("SPDFLOW_EMULATOR_NCCL_TIMEOUT_S", "600").env("LOCAL_RANK", number.to_string());
    command
}

/// Runs two ranks to their end; rank 1 has `variables` too.
fn two(bench: &Bench, more: &[&str], variables: &[(&str, &str)]) {
    let mut other = on_gpu(bench, 1, more);
    other.envs(variables.iter().copied());
    let children = [start(other), start(on_gpu(bench, 0, more))];
    for child in children {
        // A warning would say that other bytes were made.
        end(child).assert(0, "", "");
    }
}

fn log(bench: &Bench) -> String {
    let outcome = bench.run(&["log", "small.toml", ONE, "--device", "cuda", "--ranks", "2"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout
}

#[test]
fn ranks_on_gpus_make_what_one_gpu_and_the_processor_make_by_nccl_or_without() {
    let (processor, alone, together) = (bench(), bench(), bench());
    processor.run(&[&RUN[..], &[ONE]].concat()).assert(0, "", "");
    alone.run(&[&RUN[..], &ON_GPU].concat()).assert(0, "", "");
    two(&together, &[], &[]);
    assert!(log(&together).starts_with("the GPUs of 2 ranks sum by NCCL "), "{}", log(&together));
    let expected = numbers(&processor, &[]);
    assert!(expected.len() > 4, "{expected:?}");
    let cuda = ["--device", "cuda"];
    for found in [numbers(&alone, &cuda), numbers(&together, &[&cuda[..], &["--ranks", "2"]].concat())] {
        assert_eq!(found.len(), expected.len());
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            // Twenty steps of a learning rate of 1e-3, whose gradients differ by rounding.
            assert!((found - expected).abs() <= 1e-3 * expected.abs() + 1e-6, "{name}: {found} and {expected}");
        }
    }
    let made = results(&together);
    two(&together, &["--force=decompose"], &[]);
    // A sum of two has one order, so messages make the same bytes.
    two(&together, &["--force=decompose"], &[("LOCAL_RANK", "0")]);
    let shared = "gradients of 2 ranks are summed by their processors, not by NCCL: ranks 0 and 1 of 2 have the same GPU; \
                  `LOCAL_RANK` gives each rank of a machine its own\n";
    assert_eq!(log(&together), shared);
    two(&together, &["--force=decompose"], &[("SPDFLOW_NCCL", "0")]);
    let off = "gradients of 2 ranks are summed by their processors, not by NCCL: rank 1 of 2: `SPDFLOW_NCCL` is 0\n";
    assert_eq!(log(&together), off);
    assert!(results(&together) == made);
    let status = together.run(&["status", "small.toml", ONE, "--device", "cuda"]);
    let differs = "`numeric_target` \"cuda*2\" → \"cuda\"";
    status.assert(0, &format!("small: 1 fresh, 1 run\n  run     decompose[seed=0]: {differs}\n"), "");
}

#[test]
fn without_its_library_a_rank_does_without_nccl() {
    let bench = bench();
    let folders = std::env::var("LD_LIBRARY_PATH").expect("the emulator's libraries");
    let from = folders.split(':').find(|folder| fs::exists(format!("{folder}/libnccl.so.2")).unwrap_or(false));
    let from = from.expect("the emulator's libraries");
    for library in ["libcuda.so.1", "libnvrtc.so.12"] {
        let link = bench.path().join(library);
        std::os::unix::fs::symlink(format!("{from}/{library}"), link).expect("a new link");
    }
    let folder = bench.path().to_str().expect("UTF-8");
    two(&bench, &[], &[("LD_LIBRARY_PATH", folder)]);
    let expected = "gradients of 2 ranks are summed by their processors, not by NCCL: rank 1 of 2: \
                    NCCL fails (ncclGetVersion: libnccl.so.2 is not installed on this machine, or too old)\n";
    assert_eq!(log(&bench), expected);
}

#[test]
fn a_rank_without_a_gpu_is_told_how_many_there_are() {
    let bench = bench();
    let mut other = on_gpu(&bench, 1, &[]);
    other.env("LOCAL_RANK", "77");
    let (other, leader) = (start(other), Watched::start(on_gpu(&bench, 0, &[])));
    let (code, events) = leader.end();
    assert_eq!(code, Some(4), "{events:?}");
    let message = event(&events, "failed")["message"].as_str().expect("a message");
    let expected = "rank 1 of 2 failed: `--device cuda:77`: expected a number below ";
    assert!(message.starts_with(expected), "{message}");
    end(other).assert(0, "", "");
}

/// An attack in which all ranks look for one source, so that most of a step is spent with NCCL.
const ATTACK: &str = r#"{ kind = "pgd_recon", coeff = 1.0, init = "random", step_size = 0.01, n_steps = 8, mask_scope = "shared_across_batch" }"#;

#[test]
fn a_rank_that_is_killed_while_another_waits_on_its_gpu_ends_the_run_with_a_checkpoint() {
    let long = PIPELINE.replace("steps = 20\n", "steps = 400\n");
    let long = long.replace("losses = [", &format!("losses = [{ATTACK}, "));
    let bench = Bench::new().file("small.toml", long);
    let mut other = start(on_gpu(&bench, 1, &[]));
    let mut leader = Watched::start(on_gpu(&bench, 0, &["--checkpoint-seconds", "3600"]));
    leader.until_step();
    // It comes no further, so that rank 0 waits for it on its device.
    signal(&other, "-STOP");
    std::thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    other.kill().expect("a child of ours");
    let (code, events) = leader.end();
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?} to notice", begin.elapsed());
    assert_eq!(code, Some(4), "{events:?}");
    let failed = event(&events, "failed");
    let message = failed["message"].as_str().expect("a message");
    assert!(message.starts_with("rank 1 of 2 is gone (connection closed) during step "), "{message}");
    assert_eq!(failed["hint"], "start all ranks again: the stage goes on from its last step");
    assert_eq!(end(other).code, None);
    let lost_at: u64 = message.rsplit(' ').next().and_then(|step| step.parse().ok()).expect("a step");
    let other = start(on_gpu(&bench, 1, &[]));
    let (code, events) = Watched::start(on_gpu(&bench, 0, &[])).end();
    assert_eq!(code, Some(0), "{events:?}");
    end(other).assert(0, "", "");
    assert_eq!(event(&events, "resumed")["step"].as_u64(), Some(lost_at), "no step is lost");
}

#[test]
fn a_machine_without_cuda_is_told_so() {
    let bench = bench();
    let mut command = bench.command(&[&RUN[..], &ON_GPU].concat());
    command.env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "-1");
    let outcome = end(start(command));
    let expected = "there is no NVIDIA GPU that works here (CUDA_ERROR_NO_DEVICE)";
    let hint = "hint: leave out `--device`, or use `--device cpu`";
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(4), ""));
    assert!(outcome.stderr.contains(expected) && outcome.stderr.contains(hint), "{}", outcome.stderr);
}
