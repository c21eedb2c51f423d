//! Several processes that are one run: they meet, decompose together, and end together, whoever dies.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::ranks::{ONE, RUN, Watched, end, event, numbers, rank, resumes_at, start, together};
use crate::support::runs::{bench, eventually, long_bench, results, signal};
use crate::support::{Bench, Outcome};

#[test]
fn two_processes_make_what_one_makes_and_the_same_bytes_each_time() {
    let (alone, two) = (bench(), bench());
    alone.run(&RUN).assert(0, "", "");
    for outcome in together(&two, 2, &[]) {
        outcome.assert(0, "", "");
    }
    let (one, both) = (numbers(&alone, &[]), numbers(&two, &["--ranks", "2"]));
    assert!(one.len() > 4 && one.len() == both.len(), "{one:?}");
    for ((name, one), (_, both)) in one.iter().zip(&both) {
        // Twenty steps of a learning rate of 1e-3, whose gradients differ by rounding.
        assert!((one - both).abs() <= 1e-3 * one.abs() + 1e-6, "{name}: {one} alone, {both} together");
    }
    let made = results(&two);
    let target = |path: &&std::path::PathBuf| path.starts_with("small/target");
    for path in made.keys().filter(target) {
        assert!(
            made[path] == results(&alone)[path],
            "a stage that cannot be divided does not notice the other process"
        );
    }
    // A warning would say that other bytes were made.
    for outcome in together(&two, 2, &["--force=decompose"]) {
        outcome.assert(0, "", "");
    }
    assert!(results(&two) == made);
    let status = two.run(&["status", "small.toml", "--ranks", "2"]);
    status.assert(0, "small: 3 fresh\n", "");
    // To one process the decompositions are other results, and nothing else is.
    let differs = "`numeric_target` \"cpu*2\" → \"cpu\"";
    let expected = format!("decompose[seed=0]: {differs}\n  run     decompose[seed=1]: {differs}\n");
    two.run(&["status", "small.toml"]).assert(0, &format!("small: 1 fresh, 2 run\n  run     {expected}"), "");
    assert!(!two.path().join("meeting").exists(), "the file of the rendezvous is removed");
}

#[test]
fn ranks_meet_at_an_address() {
    let bench = bench();
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
    let at = |number: usize| {
        let mut command = rank(&bench, number, 2, &[]);
        command.env_remove("SPDFLOW_RENDEZVOUS").env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        start(command)
    };
    // In this order rank 1 knocks at a closed door at first.
    let other = at(1);
    std::thread::sleep(Duration::from_millis(50));
    let leader = at(0);
    end(leader).assert(0, "", "");
    end(other).assert(0, "", "");
}

#[test]
fn a_step_of_slurm_is_a_world() {
    let bench = bench();
    let task = |number: usize| {
        let mut command = bench.command(&RUN);
        command.env("SLURM_PROCID", number.to_string()).env("SLURM_NTASKS", "2").env("SLURM_JOB_ID", "77");
        command.env("SLURM_STEP_ID", std::process::id().to_string()).env("SLURM_JOB_NODELIST", "localhost");
        command.env("SPDFLOW_RENDEZVOUS_SECONDS", "30");
        start(command)
    };
    for child in [task(0), task(1)] {
        end(child).assert(0, "", "");
    }
}

#[test]
fn a_file_that_an_earlier_run_left_behind_leads_nobody_astray() {
    // A port at which something else listens and says nothing of ours.
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let text = format!("{} {} stale\n", host.trim(), stranger.local_addr().expect("a port").port());
    let bench = bench().file("meeting", text);
    let closes = std::thread::spawn(move || drop(stranger.accept()));
    let other = start(rank(&bench, 1, 2, &[]));
    closes.join().expect("it came");
    let leader = start(rank(&bench, 0, 2, &[]));
    end(leader).assert(0, "", "");
    end(other).assert(0, "", "");
}

#[test]
fn a_killed_rank_fails_the_stage_with_a_checkpoint_and_the_next_run_goes_on() {
    let bench = long_bench();
    let mut others = [1, 2].map(|number| start(rank(&bench, number, 3, &[ONE])));
    let mut leader = Watched::start(rank(&bench, 0, 3, &[ONE, "--checkpoint-seconds", "3600"]));
    leader.until_step();
    let begin = Instant::now();
    others[1].kill().expect("a child of ours");
    let (code, events) = leader.end();
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?} to notice", begin.elapsed());
    assert_eq!(code, Some(4), "{events:?}");
    let failed = event(&events, "failed");
    let message = failed["message"].as_str().expect("a message");
    assert!(message.starts_with("rank 2 of 3 is gone (connection closed) during step "), "{message}");
    assert_eq!(failed["hint"], "start all ranks again: the stage goes on from its last step");
    let [survivor, killed] = others;
    end(survivor).assert(0, "", "");
    assert_eq!(end(killed).code, None);
    let lost_at: u64 = message.rsplit(' ').next().and_then(|step| step.parse().ok()).expect("a step");
    assert_eq!(resumes_at(&bench, 3, ONE), lost_at, "no step is lost");
}

#[test]
fn without_rank_0_the_others_end_too() {
    let bench = long_bench();
    let other = start(rank(&bench, 1, 2, &[ONE]));
    let mut leader = Watched::start(rank(&bench, 0, 2, &[ONE]));
    leader.until_step();
    leader.child.kill().expect("a child of ours");
    assert_eq!(leader.end().0, None);
    end(other).assert(
        4,
        "",
        "error: rank 0 of 2 is gone (connection closed)\n  \
         hint: finished stages are safe in its cache; start all ranks again to go on\n",
    );
}

#[test]
fn an_interrupted_run_saves_its_state_and_sends_the_others_home() {
    let bench = long_bench();
    let other = start(rank(&bench, 1, 2, &[ONE]));
    let mut leader = Watched::start(rank(&bench, 0, 2, &[ONE, "--checkpoint-seconds", "3600"]));
    leader.until_step();
    // As Ctrl-C does, to all of them.
    signal(&other, "-INT");
    signal(&leader.child, "-INT");
    let (code, events) = leader.end();
    assert_eq!(code, Some(130), "{events:?}");
    event(&events, "interrupted");
    end(other).assert(0, "", "");
    assert!(resumes_at(&bench, 2, ONE) > 0);
}

#[test]
fn a_pipeline_that_is_wrong_ends_all_ranks_at_once() {
    let bench = Bench::new().file("small.toml", "[stage.x]\nuses = \"no.such\"\n");
    let outcomes = together(&bench, 2, &[]);
    assert_eq!(outcomes[0].code, Some(2), "{}", outcomes[0].stderr);
    outcomes[1].assert(0, "", "");
}

#[test]
fn a_place_that_is_none_is_refused() {
    let bench = bench();
    let refused = |variables: &[(&str, &str)], more: &[&str], expected: &str| {
        let mut command = bench.command(&[&RUN, more].concat());
        let outcome = Outcome::of(command.envs(variables.iter().copied()).output().expect("the binary starts"));
        outcome.assert(2, "", expected);
    };
    let hint = "\n  hint: `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` place a process among others, as `srun` does\n";
    refused(
        &[("RANK", "4"), ("WORLD_SIZE", "4")],
        &[],
        &format!("error: `RANK` is `4`, expected a rank of 4, from 0 to 3{hint}"),
    );
    refused(&[("WORLD_SIZE", "2")], &[], &format!("error: `WORLD_SIZE` is 2 but `RANK` is not set{hint}"));
    refused(
        &[],
        &["--ranks", "4"],
        "error: `--ranks` is 4 but 1 process was started\n  \
         hint: start it with `srun -n 4`, or set `WORLD_SIZE` and each one's `RANK`\n",
    );
    refused(
        &[("RANK", "0"), ("WORLD_SIZE", "2")],
        &["--watch"],
        "error: `--watch` cannot be used by several processes together\n",
    );
    refused(
        &[("RANK", "0"), ("WORLD_SIZE", "2"), ("SPDFLOW_RENDEZVOUS", "here"), ("SPDFLOW_RENDEZVOUS_SECONDS", "0")],
        &[],
        "error: rank 1 of 2 did not come to `here` in time\n  \
         hint: all processes need the same `WORLD_SIZE` and `MASTER_ADDR`; in a batch script `srun` starts them\n",
    );
}

#[test]
fn ranks_that_disagree_about_the_world_are_told_so() {
    let bench = bench();
    let (leader, other) = (start(rank(&bench, 0, 2, &[])), start(rank(&bench, 1, 3, &[])));
    let expected = "error: rank 1 has a world of 3, rank 0 has a world of 2\n  \
                    hint: all ranks need the same program, options and kind of processor\n";
    end(leader).assert(2, "", expected);
    end(other).assert(2, "", expected);
}

#[test]
fn a_rank_of_another_version_is_refused() {
    let bench = bench();
    let leader = start(rank(&bench, 0, 2, &[]));
    let text = eventually("the file", || fs::read_to_string(bench.path().join("meeting")).ok());
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut stream = TcpStream::connect(("127.0.0.1", words[1].parse::<u16>().expect("a port"))).expect("it listens");
    let greeting = serde_json::json!({
        "protocol": 1, "rank": 1, "size": 2, "session": words[2],
        "identity": { "program": "spdflow 0.0.9 (abc, def)", "device": "cpu", "processor": "" },
    });
    let greeting = greeting.to_string();
    let mut frame = vec![0];
    frame.extend_from_slice(&(greeting.len() as u64).to_le_bytes());
    frame.extend_from_slice(greeting.as_bytes());
    stream.write_all(&frame).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    // Before the text stands its length, which is no text.
    let answer = String::from_utf8_lossy(&answer);
    let start = "rank 1 is spdflow 0.0.9 (abc, def), rank 0 is spdflow ";
    assert!(answer.contains(start), "{answer}");
    let outcome = end(leader);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(outcome.stderr.starts_with(&format!("error: {start}")), "{}", outcome.stderr);
}
