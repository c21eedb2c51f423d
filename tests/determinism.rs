//! The same bytes whatever happens: threads, jobs, another cache, interruptions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::contracts::{EVERY_KIND, EVERY_KIND_PROGRAM};
use crate::support::Bench;
use crate::support::runs::{results, signal};

/// Every kind in one pipeline, with enough steps to be stopped in the middle of several stages.
fn bench() -> Bench {
    let long = EVERY_KIND.replacen("steps = 40\n", "steps = 1000\n", 1).replace("steps = 12\n", "steps = 600\n");
    assert_eq!(long.matches("00\n").count(), EVERY_KIND.matches("00\n").count() + 3, "three stages are long");
    Bench::new().file("every_kind.toml", long).file("every_kind.sh", EVERY_KIND_PROGRAM)
}

fn run(bench: &Bench, more: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    bench.run(&[&["run", "every_kind.toml", "--quiet"], more].concat()).assert(0, "", "");
    results(bench)
}

/// Fails with the names of the files that differ; their bytes would fill the screen.
fn assert_same(ours: &BTreeMap<PathBuf, Vec<u8>>, theirs: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let differing: Vec<_> = ours.iter().filter(|(path, bytes)| theirs.get(*path) != Some(bytes)).collect();
    let differing: Vec<_> = differing.into_iter().map(|(path, _)| path.display().to_string()).collect();
    assert!(differing.is_empty() && ours.len() == theirs.len(), "{what}: {differing:?} differ");
}

#[test]
fn the_results_of_every_kind_depend_on_nothing_but_the_pipeline() {
    let bench_of_one = bench();
    let one = run(&bench_of_one, &["--threads", "1"]);
    assert!(one.len() > 30, "{:?}", one.keys());
    let two = run(&bench(), &["--threads", "2", "--jobs", "2"]);
    assert_same(&one, &two, "one thread and two");

    // Any instant may be the last: of Ctrl-C, which lets the stage save its state, and of kill -9, which does not.
    let bench = bench();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").subsec_nanos();
    let (mut state, mut stops, mut moments) = (u64::from(seed), 0, Vec::new());
    while stops < 8 {
        // Knuth's generator; the high bits are the random ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let milliseconds = 20 + (state >> 33) % 280;
        let mut command = bench.command(&["run", "every_kind.toml", "--quiet", "--checkpoint-seconds", "0"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        std::thread::sleep(Duration::from_millis(milliseconds));
        let name = if stops % 2 == 0 { "-KILL" } else { "-INT" };
        signal(&child, name);
        let code = child.wait().expect("a child of ours").code();
        moments.push(format!("{name} after {milliseconds} ms: {code:?}"));
        match code {
            None | Some(130) => stops += 1,
            // It was done before the signal came.
            Some(0) => break,
            Some(_) => panic!("{moments:?}"),
        }
    }
    let interrupted = run(&bench, &[]);
    assert_same(&one, &interrupted, &moments.join("; "));
}
