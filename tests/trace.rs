//! `spdflow trace`: what it finds by bytes alone, what it says where it finds nothing, and that it changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Bench, Outcome, masked, snapshot};

/// A diamond: `b` and `c` of `a`, `d` of both; `b` only passes on what it was given.
const PIPELINE: &str = r#"[stage.a]
uses = "command"
params = { run = ["sh", "-c", "echo made; echo one > {out.x}"], outputs = { x = "x.txt" } }

[stage.b]
uses = "command"
inputs = { a = "a" }
params = { run = ["sh", "-c", "echo made; cp {in.a}/x.txt {out.x}"], outputs = { x = "x.txt" } }

[stage.c]
uses = "command"
inputs = { a = "a" }
params = { run = ["sh", "-c", "cat {in.a}/x.txt > {out.x}; echo {value.n} >> {out.x}"], outputs = { x = "table.csv" }, values = { n = 2 } }

[stage.d]
uses = "command"
inputs = { b = "b", c = "c" }
params = { run = ["sh", "-c", "cp picture.png {out.p}"], outputs = { p = "figure.png" }, code = ["picture.png"] }

[stage.stuck]
uses = "command"
params = { run = ["sh", "-c", "echo half > state.bin; exit 1"] }
"#;

/// Writes a picture of two pixels; `compression` changes the bytes of the file and not the pixels.
fn picture(pixels: [u8; 2], is_saved_again: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Grayscale);
    if is_saved_again {
        encoder.add_text_chunk("Software".to_owned(), "another".to_owned()).expect("a text");
    }
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels)).expect("an image");
    bytes
}

fn bench() -> Bench {
    let bench = Bench::new().file("p/top.toml", PIPELINE).file("p/picture.png", picture([7, 9], false));
    bench.run(&["run", "p/top.toml", "d", "--quiet"]).assert(0, "", "");
    bench
}

/// Traces a file and asserts that the cache and the results stay as they are.
fn traced(bench: &Bench, arguments: &[&str]) -> Outcome {
    let seen = || [".spdflow", "out"].map(|folder| snapshot(&bench.path().join(folder)));
    let before = seen();
    let outcome = bench.run(&[&["trace"], arguments].concat());
    assert!(seen() == before, "something was changed");
    outcome
}

fn document(bench: &Bench, file: &str) -> Value {
    let outcome = traced(bench, &[file, "--json"]);
    serde_json::from_str(&outcome.stdout).expect("one JSON document")
}

/// Returns the files below a folder of the cache.
fn files(bench: &Bench, folder: &str) -> Vec<PathBuf> {
    let all = snapshot(&bench.path().join(".spdflow").join(folder));
    all.into_keys().filter(|path| path.is_file()).collect()
}

#[test]
fn a_picture_is_traced_by_its_bytes_under_another_name_to_its_sources() {
    let bench = bench().file("elsewhere/renamed", picture([7, 9], false));
    let outcome = traced(&bench, &["elsewhere/renamed"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let begins = [
        "elsewhere/renamed: ",
        "",
        "`figure.png` of `d`, pipeline `top`",
        "  what         png: ",
        "  kind         command",
        "  fingerprint  ",
        "  artifact     ",
        "  parameters   code.picture.png = ",
        "  run          2",
        "  computed     2",
        "  machine      ",
        "  program      spdflow ",
        "  built by     rustc ",
        "  in place     out/top/d/figure.png",
        "  made from",
        "    b ← a (command, FINGERPRINT; the same as b)",
        "    c ← c (command, FINGERPRINT)",
        "      a ← a (command, FINGERPRINT; the same as b)",
        "",
        "`code-0-picture.png` of run 2",
    ];
    assert_eq!(lines.len(), begins.len(), "{}", outcome.stdout);
    for (line, begin) in lines.iter().zip(begins) {
        let line = match line.split_once("(command, ") {
            Some((head, tail)) => format!("{head}(command, FINGERPRINT{}", &tail[12..]),
            None => (*line).to_owned(),
        };
        assert!(line.starts_with(begin), "expected `{begin}…`, found `{line}`");
    }
}

#[test]
fn a_file_that_several_results_have_is_told_of_each() {
    let bench = bench().file("x", "one\n");
    // By instance: those of one second may come in any order.
    let places = |file: &str| {
        let document = document(&bench, file);
        let places = document["places"].as_array().expect("a list").clone();
        let name = |place: &Value| place["record"]["instance"].as_str().expect("a name").to_owned();
        places.into_iter().map(|place| (name(&place), place)).collect::<BTreeMap<_, _>>()
    };
    let found = places("out/top/b/x.txt");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
    // `b` passed on what `a` made, so its artifact has two producers; it is not its own.
    assert_eq!(found["b"]["inputs"][0]["producer"]["instance"], "a");
    assert_eq!(found["b"]["in_place"], "out/top/b/x.txt");
    let outcome = traced(&bench, &["out/top/b/x.txt"]);
    assert!(outcome.stdout.contains("\n`x.txt` of `a`, pipeline `top`\n"), "{}", outcome.stdout);
    // What was edited is no longer there.
    fs::write(bench.path().join("out/top/b/x.txt"), "two\n").expect("a result");
    assert_eq!(places("x")["b"]["in_place"], Value::Null);
    fs::remove_dir_all(bench.path().join("out/top/b")).expect("a folder");
    assert_eq!(places("x")["b"]["in_place"], Value::Null);
}

#[test]
fn logs_records_files_of_runs_and_checkpoints_are_told_apart() {
    let bench = bench().file("log", "made\n").file("half", "half\n");
    assert_eq!(bench.run(&["run", "p/top.toml", "stuck", "--quiet"]).code, Some(4));
    let place = |file: &PathBuf| {
        let document = document(&bench, file.to_str().expect("text"));
        let places = document["places"].as_array().expect("a list").clone();
        places.into_iter().map(|place| place["place"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(place(&"log".into()), ["log", "log"]);
    let record = files(&bench, "records").remove(0);
    assert_eq!(place(&record), ["record"]);
    let journal = files(&bench, "runs").into_iter().find(|path| path.ends_with("journal.jsonl")).expect("a journal");
    assert_eq!(place(&journal), ["run"]);
    let found = document(&bench, "half");
    let work = &found["places"][0];
    assert_eq!((&work["place"], &work["instance"]), (&"work".into(), &"stuck".into()));
    assert_eq!(work["file"], "scratch/state.bin");
    let outcome = traced(&bench, &["half"]);
    let text = "half: N B, BLAKE3 DIGEST\n\n`scratch/state.bin` of the unfinished work on `stuck`\n\
                fingerprint DIGEST\nrun RUN\n";
    let run = work["run"].as_str().expect("a run");
    assert_eq!(masked(&outcome.stdout).replace(run, "RUN"), text);
    for record in files(&bench, "records") {
        fs::remove_file(record).expect("a record");
    }
    let blob = files(&bench, "blobs").remove(0);
    assert_eq!(place(&blob), ["blob"]);
}

#[test]
fn a_picture_that_was_saved_again_is_told_from_one_that_was_changed() {
    let bench = bench().file("again.png", picture([7, 9], true)).file("figure.png", picture([7, 8], false));
    let message = |outcome: &Outcome| {
        let run = bench.path().join(".spdflow/runs");
        let run = fs::read_dir(run).expect("runs").next().expect("a run").expect("a run").file_name();
        masked(&outcome.stderr).replace(&*run.to_string_lossy(), "RUN")
    };
    let outcome = traced(&bench, &["again.png"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(11), ""));
    let same = "error: nothing in the cache `.spdflow` has the bytes of `again.png` (BLAKE3 DIGEST, N B)\n\
                hint: it holds the same as `figure.png` of `d`, pipeline `top`, run RUN (BLAKE3 DIGEST): \
                it was probably saved again by another program\n";
    assert_eq!(message(&outcome), same);
    let outcome = traced(&bench, &["figure.png"]);
    assert_eq!(outcome.code, Some(11));
    let named = "error: nothing in the cache `.spdflow` has the bytes of `figure.png` (BLAKE3 DIGEST, N B)\n\
                 hint: of its name, with other contents: `figure.png` of `d`, pipeline `top`, run RUN (BLAKE3 DIGEST)\n";
    assert_eq!(message(&outcome), named);
    let json = document(&bench, "again.png");
    assert_eq!((&json["places"], &json["same"][0]["instance"]), (&serde_json::json!([]), &"d".into()));
}

#[test]
fn a_file_of_which_nothing_is_known_and_one_that_is_not_there_are_errors() {
    let bench = bench().file("unheard-of", "x").file("of.png", "no picture");
    let nothing = "error: nothing in the cache `.spdflow` has the bytes of `unheard-of` (BLAKE3 DIGEST, N B)\n\
                   hint: name another cache with `--cache DIR`; results that were collected are forgotten\n";
    let outcome = traced(&bench, &["unheard-of"]);
    assert_eq!((outcome.code, masked(&outcome.stderr).as_str()), (Some(11), nothing));
    assert_eq!(traced(&bench, &["of.png"]).code, Some(11));
    traced(&bench, &["nowhere"]).assert(
        2,
        "",
        "error: cannot read `nowhere`: No such file or directory (os error 2)\n",
    );
    traced(&bench, &["p"]).assert(2, "", "error: cannot read `p`: it is a folder, expected a file\n");
    let bench = Bench::new().file("x", "x");
    let no_cache = "error: there is no cache in `.spdflow`\n  \
                    hint: name one with `--cache DIR` or `SPDFLOW_CACHE`; `spdflow run` makes it\n";
    bench.run(&["trace", "x"]).assert(2, "", no_cache);
    assert_eq!(fs::read_dir(bench.path()).expect("a folder").count(), 1);
}

#[test]
fn records_that_cannot_be_trusted_are_left_out_with_a_warning_and_stay() {
    let bench = bench();
    let damaged = files(&bench, "records").remove(0);
    let text = fs::read_to_string(&damaged).expect("a record");
    fs::write(&damaged, text.replace("\"interruptions\": 0", "\"interruptions\": 1")).expect("a record");
    let outcome = traced(&bench, &["unheard-of"]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    let outcome = traced(&bench, &["p/picture.png"]);
    let warning = "warning: records that cannot be trusted were left out: `";
    assert!(outcome.stderr.starts_with(warning), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("` (its bytes do not match its seal); `spdflow cache verify` names them\n"),
        "{}",
        outcome.stderr
    );
    assert!(damaged.exists());
}
