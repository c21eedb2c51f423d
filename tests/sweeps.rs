//! Sweeps, run as a user runs them.

use crate::support::runs::PIPELINE;
use crate::support::{Bench, masked};

const SWEEP: &str = r#"
[sweep.price.stage.decompose.params]
losses = [{ kind = "importance_minimality", coeff = { values = [1e-3, 1e-2] } }]
"#;

fn bench() -> Bench {
    Bench::new().file("small.toml", format!("{PIPELINE}{SWEEP}"))
}

#[test]
fn a_sweep_runs_what_it_varies_at_every_point_and_the_rest_once() {
    let bench = bench();
    let run = bench.run(&["run", "small.toml", "--sweep", "price", "--json"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let events: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    let finished: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "finished" && event["outcome"] == "ran")
        .map(|event| event["instance"].as_str().expect("a name"))
        .collect();
    let expected = [
        "target",
        "decompose[price=coeff-0.001,seed=0]",
        "decompose[price=coeff-0.01,seed=0]",
        "decompose[price=coeff-0.001,seed=1]",
        "decompose[price=coeff-0.01,seed=1]",
    ];
    assert_eq!(finished.len(), expected.len());
    assert!(expected.iter().all(|id| finished.contains(id)), "{finished:?}");
    assert!(bench.path().join("out/small/decompose/price=coeff-0.01/seed=1/components.safetensors").exists());
    // The same result under another name: the pipeline without the sweep finds its target in the cache.
    let plain = bench.run(&["plan", "small.toml", "target", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plain.stdout).expect("one JSON document");
    assert_eq!(plan["stages"][0]["plan"], "fresh", "{}", plain.stdout);

    let table =
        bench.run(&["metrics", "small.toml", "decompose", "--sweep", "price", "--columns", "loss", "--sort", "-coeff"]);
    let expected = "\
stage seed coeff loss
decompose N N N
decompose N N N
decompose N N N
decompose N N N
";
    assert_eq!((masked(&table.stdout).as_str(), table.stderr.as_str()), (expected, ""));
    let coefficients: Vec<_> = table.stdout.lines().skip(1).map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(coefficients, [Some("0.01"), Some("0.01"), Some("0.001"), Some("0.001")]);

    let args = [
        "metrics",
        "small.toml",
        "decompose",
        "--sweep",
        "price",
        "--group-by",
        "coeff",
        "--sort",
        "-loss/total",
        "--json",
    ];
    let groups = bench.run(&args);
    let document: serde_json::Value = serde_json::from_str(&groups.stdout).expect("one JSON document");
    let rows = document["rows"].as_array().expect("a list");
    assert_eq!(rows.iter().map(|row| row["count"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(2)]);
    let total = |row: usize| rows[row]["numbers"]["loss/total"]["mean"].as_f64().expect("a number");
    assert!(total(0) > total(1) && rows[0]["labels"]["coeff"] == "0.01", "dear components make the larger loss");
    assert!(rows[0]["numbers"]["loss/total"]["std"].as_f64() > Some(0.0));
}

#[test]
fn comparing_by_what_is_not_there_is_explained() {
    let bench = bench();
    assert_eq!(bench.run(&["run", "small.toml", "target", "--quiet"]).code, Some(0));
    bench.run(&["metrics", "small.toml", "target", "--sort", "lss"]).assert(
        2,
        "",
        "error: no result here has a number or label `lss`\n  hint: did you mean `loss`?\n",
    );
    bench.run(&["metrics", "small.toml", "--group-by", "sed"]).assert(
        2,
        "",
        "error: nothing can be grouped by `sed`\n  hint: did you mean `seed`?\n",
    );
    bench.run(&["metrics", "small.toml", "--sweep", "prise"]).assert(
        2,
        "",
        "error: there is no sweep `prise`\n  hint: did you mean `price`?\n",
    );
}
