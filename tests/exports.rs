//! `spdflow export`: that each form says what the results are and what they came from, and that nothing is changed by it.
//!
//! Whether the forms are right in the eyes of others is checked with their own validators: `tests/python/check_exports.py`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use spdflow_engine::sums::Sums;

use crate::support::{Bench, snapshot};

const PIPELINE: &str = r#"[pipeline]
name = "small"
description = "Three commands"
[axes]
seed = [0, 1]
[stage.a]
uses = "command"
params = { run = ["sh", "make it.sh", "{out.x}"], outputs = { x = "x y.txt" }, code = ["make it.sh"] }
[stage.b]
uses = "command"
matrix = ["seed"]
inputs = { a = "a" }
params = { run = ["sh", "-c", "cat {in.a}/x* > {out.x}; echo {value.s} >> {out.x}"], outputs = { x = "b.csv" }, values = { s = "${seed}" } }
[stage.c]
uses = "command"
inputs = { b = { from = "b", over = ["seed"] } }
params = { run = ["sh", "-c", "echo $# > $0", "{out.x}", "{in.b}"], outputs = { x = "c.json" } }
"#;

fn bench() -> Bench {
    let bench = Bench::new().file("p/small.toml", PIPELINE).file("p/make it.sh", "echo made; echo text > \"$1\"\n");
    bench.run(&["run", "p/small.toml", "--quiet"]).assert(0, "", "");
    bench
}

/// Exports in a form that is printed, and asserts that the cache stays as it is.
fn printed(bench: &Bench, format: &str) -> String {
    let cache = bench.path().join(".spdflow");
    let before = snapshot(&cache);
    let [first, second] = [0, 1].map(|_| bench.run(&["export", "p/small.toml", "--format", format]));
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    assert_eq!(first.stdout, second.stdout, "two exports of the same results differ");
    assert!(snapshot(&cache) == before, "the cache was changed");
    first.stdout
}

fn sha256(bench: &Bench, file: &str) -> String {
    Sums::of(&fs::read(bench.path().join(file)).expect(file)).sha256
}

/// Returns the SHA-256 of resources by their names.
fn resources<'l>(list: &'l Value) -> BTreeMap<&'l str, &'l str> {
    let text = |value: &'l Value| value.as_str().expect("a text");
    let pair = |resource: &'l Value| (text(&resource["name"]), text(&resource["digest"]["sha256"]));
    list.as_array().expect("a list").iter().map(pair).collect()
}

#[test]
fn statements_name_what_was_made_of_what_by_which_program() {
    let bench = bench();
    let text = printed(&bench, "slsa");
    let statements: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(statements.len(), 4);
    let sum = |file: &str| sha256(&bench, file);
    let second = &statements[1];
    assert_eq!(
        (&second["_type"], &second["predicateType"]),
        (&"https://in-toto.io/Statement/v1".into(), &"https://slsa.dev/provenance/v1".into())
    );
    let (manifest, table) = (sum("out/small/b/seed=0/artifact.json"), sum("out/small/b/seed=0/b.csv"));
    let made = BTreeMap::from([("b[seed=0]/artifact.json", manifest.as_str()), ("b[seed=0]/b.csv", table.as_str())]);
    assert_eq!(resources(&second["subject"]), made);
    let definition = &second["predicate"]["buildDefinition"];
    assert_eq!(definition["buildType"], "urn:spdflow:stage:1");
    assert_eq!(definition["externalParameters"]["kind"], "command");
    assert_eq!(definition["externalParameters"]["params"]["values"]["s"], 0);
    let (manifest, text) = (sum("out/small/a/artifact.json"), sum("out/small/a/x y.txt"));
    let pipeline = sum("p/small.toml");
    let taken = [("a/artifact.json", &manifest), ("a/x y.txt", &text), ("small.toml", &pipeline)];
    assert_eq!(resources(&definition["resolvedDependencies"]), taken.map(|(name, sum)| (name, sum.as_str())).into());
    let first = &statements[0]["predicate"];
    let code = sum("p/make it.sh");
    assert_eq!(resources(&first["buildDefinition"]["resolvedDependencies"])["make it.sh"], code);
    let log = Sums::of(b"made\n").sha256;
    assert_eq!(resources(&first["runDetails"]["byproducts"]), BTreeMap::from([("log", log.as_str())]));
    let run = fs::read_dir(bench.path().join(".spdflow/runs")).expect("runs").next().expect("a run").expect("a run");
    assert_eq!(first["runDetails"]["metadata"]["invocationId"], run.file_name().to_str().expect("text"));
}

#[test]
fn prov_relates_every_file_to_the_stage_that_made_it_and_to_those_that_used_it() {
    let bench = bench();
    let document: Value = serde_json::from_str(&printed(&bench, "prov")).expect("one JSON document");
    let count = |kind: &str| document[kind].as_object().expect("a table").len();
    // The pipeline and the code; 4 results of 2 files each.
    assert_eq!((count("entity"), count("activity"), count("agent")), (2 + 4 * 3, 4, 1));
    // `b` twice the 2 files of `a`, `c` the 4 of `b`, `a` its code.
    assert_eq!((count("used"), count("wasGeneratedBy"), count("hadMember")), (2 * 2 + 4 + 1, 4 * 3, 4 * 2));
    let derived = document["wasDerivedFrom"].as_object().expect("a table");
    let label = |name: &Value| &document["entity"][name.as_str().expect("a name")]["prov:label"];
    let mut pairs: Vec<_> = derived
        .values()
        .map(|relation| {
            (label(&relation["prov:generatedEntity"]).to_string(), label(&relation["prov:usedEntity"]).to_string())
        })
        .collect();
    pairs.sort();
    let expected = [("b[seed=0]", "a"), ("b[seed=1]", "a"), ("c", "b[seed=0]"), ("c", "b[seed=1]")];
    assert_eq!(pairs, expected.map(|(made, used)| (format!("\"{made}\""), format!("\"{used}\""))));
    let files = document["entity"].as_object().expect("a table").values();
    let file = files.into_iter().find(|entity| entity["prov:label"] == "c/c.json").expect("the file");
    assert_eq!(file["spdflow:sha256"], sha256(&bench, "out/small/c/c.json"));
}

#[test]
fn a_crate_holds_the_pipeline_its_results_and_an_action_for_each() {
    let bench = bench();
    let cache = bench.path().join(".spdflow");
    let before = snapshot(&cache);
    bench.run(&["export", "p/small.toml", "--format", "ro-crate"]).assert(
        0,
        "small.ro-crate: 4 results, 12 files\n",
        "",
    );
    assert!(snapshot(&cache) == before, "the cache was changed");
    let root = bench.path().join("small.ro-crate");
    let metadata = fs::read_to_string(root.join("ro-crate-metadata.json")).expect("the metadata");
    let document: Value = serde_json::from_str(&metadata).expect("JSON");
    let graph = document["@graph"].as_array().expect("a list");
    let of = |kind: &str| graph.iter().filter(|entity| entity["@type"] == kind).collect::<Vec<_>>();
    // 4 results and the whole; README.md, the code, and 4 results of 2 files.
    assert_eq!((of("CreateAction").len(), of("ControlAction").len(), of("HowToStep").len()), (5, 4, 4));
    assert_eq!(of("File").len(), 2 + 4 * 2);
    for (place, made) in [
        ("results/a/x y.txt", "out/small/a/x y.txt"),
        ("results/b/seed=1/b.csv", "out/small/b/seed=1/b.csv"),
        ("pipeline/small.toml", "p/small.toml"),
        ("pipeline/make it.sh", "p/make it.sh"),
    ] {
        assert_eq!(fs::read(root.join(place)).expect(place), fs::read(bench.path().join(made)).expect(made));
    }
    let action =
        of("CreateAction").into_iter().find(|action| action["@id"] == "#action/b%5Bseed=1%5D").expect("an action");
    let objects: Vec<_> = action["object"].as_array().expect("a list").iter().map(|object| &object["@id"]).collect();
    assert!(objects.contains(&&Value::from("results/a/x%20y.txt")), "{objects:?}");
    assert!(objects.contains(&&Value::from("#action/b%5Bseed=1%5D/values.s")), "{objects:?}");
    let license = of("CreativeWork").into_iter().find(|work| work["@id"] == "#license").expect("a licence");
    assert_eq!(license["name"], "No licence is stated");

    let again = ["export", "p/small.toml", "--format", "ro-crate", "-o", "again", "-q", "--license", "https://x.org/l"];
    bench.run(&again).assert(0, "", "");
    let other = fs::read_to_string(bench.path().join("again/ro-crate-metadata.json")).expect("the metadata");
    assert!(other.contains("\"@id\": \"https://x.org/l\"") && !other.contains("#license"), "{other}");
    let taken = "error: `again` exists already and is not overwritten\n  hint: choose another name with `--output`\n";
    bench.run(&again).assert(2, "", taken);
}

#[test]
fn nothing_is_written_if_a_result_is_missing_or_damaged() {
    let bench = bench();
    let missing = "error: `a` has no result yet\n  hint: make what is missing: `spdflow run p/small.toml`\n";
    let changed = ["export", "p/small.toml", "a", "--format", "slsa", "--set", "stage.a.params.env.X=one"];
    bench.run(&changed).assert(3, "", missing);
    let blob = Sums::of(b"text\n").blake3.to_string();
    let blob = bench.path().canonicalize().expect("a folder").join(".spdflow/blobs").join(&blob[..2]).join(&blob[2..]);
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).expect("a blob");
    fs::write(&blob, "TEXT\n").expect("a blob");
    let damaged = format!(
        "error: the file `x y.txt` of `a` is damaged in the cache: `{}` has other bytes than its name says\n  \
         hint: `spdflow cache verify` puts it aside, then `spdflow run` makes it anew\n",
        blob.display()
    );
    for format in ["slsa", "prov", "ro-crate"] {
        bench.run(&["export", "p/small.toml", "--format", format, "-o", "it"]).assert(7, "", &damaged);
    }
    assert!(blob.exists() && !bench.path().join("it").exists());
    assert_eq!(fs::read_dir(bench.path()).expect("a folder").count(), 3);
}

#[test]
fn what_is_written_to_a_file_is_told_in_words_or_json() {
    let bench = bench();
    bench.run(&["export", "p/small.toml", "--format", "slsa", "-o", "it"]).assert(0, "it: 4 results\n", "");
    assert_eq!(fs::read_to_string(bench.path().join("it")).expect("a file"), printed(&bench, "slsa"));
    let json = "{\n  \"file\": \"one\",\n  \"files\": null,\n  \"pipeline\": \"small\",\n  \"results\": 1,\n  \"version\": 1\n}\n";
    bench.run(&["export", "p/small.toml", "a", "--format", "prov", "-o", "one", "--json"]).assert(0, json, "");
}
