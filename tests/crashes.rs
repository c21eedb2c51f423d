//! `kill -9` at random moments, again and again: nothing partial is ever visible, the next run goes on without help, and
//! the bytes are those of a run that nobody disturbed.
//!
//! `SPDFLOW_KILLS=1000 cargo test -p spdflow --test main crashes` kills more often than the usual two hundred times.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::Bench;
use crate::support::runs::results;

/// Programs, a stage that resumes from checkpoints, and one that depends on both.
const PIPELINE: &str = r#"
[pipeline]
name = "killed"

[axes]
n = [1, 2, 3]

[stage.count]
uses = "command"
matrix = ["n"]
params = { run = ["sh", "-c", "seq {value.n}000 > {out.list}"], outputs = { list = "list.txt" }, values = { n = "${n}" } }

[stage.sum]
uses = "command"
inputs = { lists = { from = "count", over = ["n"] } }
params = { run = ["sh", "-c", "for d; do cat $d/list.txt; done | cksum > $0", "{out.sum}", "{in.lists}"], outputs = { sum = "sum.txt" } }

[stage.target]
uses = "train.tms"
params = { n_features = 5, n_hidden = 2, feature_probability = 0.05, steps = 200, batch_size = 64, restarts = 1, seed = 0 }

[stage.clusters]
uses = "cluster.kmeans"
inputs = { decomposition = "decompose" }
params = { n_clusters = 2 }

[stage.decompose]
uses = "decompose.spd"
inputs = { target = "target" }
[stage.decompose.params]
seed = 0
steps = 60
batch_size = 64
lr = { start = 1e-3 }
sites = [{ pattern = "linear1", C = 4 }, { pattern = "linear2", C = 4 }]
causal_importance = { kind = "mlp", hidden = [4] }
losses = [{ kind = "importance_minimality", coeff = 3e-3, p = 1.0 }, { kind = "stochastic_recon", coeff = 1.0 }]
evaluation = { every = 1000, batches = 1 }
"#;

/// Kills of one folder at most, before it is brought to its end and compared.
const KILLS_IN_A_ROW: u32 = 12;

fn bench() -> Bench {
    Bench::new().file("p.toml", PIPELINE)
}

const RUN: [&str; 7] = ["run", "p.toml", "--quiet", "--jobs", "2", "--checkpoint-seconds", "0"];

fn run_to_the_end(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let outcome = bench.run(&RUN);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "no help is needed, and nobody is warned");
    results(bench)
}

/// A sequence of numbers that look random, from a seed that a failure names.
struct Moments(u64);

impl Moments {
    /// Returns a moment before `end`.
    fn next(&mut self, end: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        end.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[test]
fn kills_at_random_moments_change_no_byte() {
    let kills: u32 = std::env::var("SPDFLOW_KILLS").map_or(200, |count| count.parse().expect("a number of kills"));
    let undisturbed = bench();
    let begin = Instant::now();
    let expected = run_to_the_end(&undisturbed);
    // Later moments come about by themselves: each run goes on where the last one was killed.
    let latest = begin.elapsed().min(Duration::from_millis(600));
    assert!(expected.len() > 20, "{:?}", expected.keys());
    let seed = u64::from(std::process::id());
    let (mut moments, mut killed, mut in_a_row) = (Moments(seed), 0, 0);
    let mut bench = bench();
    while killed < kills {
        let mut child = bench.command(&RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(moments.next(latest));
        child.kill().expect("a child of ours");
        let was_killed = child.wait().expect("a child of ours").code().is_none();
        killed += u32::from(was_killed);
        in_a_row += 1;
        for (path, bytes) in results(&bench) {
            let is_partial = path.iter().any(|part| part.to_string_lossy().starts_with(".partial-"));
            assert!(
                is_partial || expected.get(&path) == Some(&bytes),
                "seed {seed}, kill {killed}: {}",
                path.display()
            );
        }
        if !was_killed || in_a_row == KILLS_IN_A_ROW {
            assert!(run_to_the_end(&bench) == expected, "seed {seed}, {killed} kills: other bytes");
            let verified = bench.run(&["cache", "verify", "--quiet"]);
            assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "seed {seed}, {killed} kills");
            (bench, in_a_row) = (self::bench(), 0);
        }
    }
}
