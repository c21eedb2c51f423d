//! Level 3: stages that cannot be reproduced, each for another reason.

use std::fs;

use super::place::{Place, SOUND};

/// Everything varied.
const ALL: [&str; 2] = ["--level=3", "--vary=threads,path,env,kill,order"];

/// A stage with a fault, one that takes what it makes, and one that has nothing to do with it.
fn pipeline(fault: &str) -> String {
    format!(
        r#"
[stage.other]
uses = "sound"
params = {{ fault = "none", seed = 4 }}

[stage.bad]
uses = "faulty"
params = {{ fault = "{fault}", seed = 7 }}

[stage.after]
uses = "sound"
inputs = {{ of = "bad" }}
params = {{ fault = "none", milliseconds = 0 }}
"#
    )
}

/// Audits a pipeline with this fault, and returns what was found about the stage that has it.
#[track_caller]
fn found(fault: &str) -> Vec<String> {
    let place = Place::run(&pipeline(fault));
    let audited = place.audit(&ALL);
    audited.assert_code(12);
    assert_eq!(audited.faults(), [("not_reproduced".to_owned(), "bad".to_owned())], "{:#}", audited.report);
    assert_eq!((audited.grades("bad").contains('F'), audited.grades("other")), (true, "B".to_owned()));
    // What is made of it is tainted, though it was made again from what was recorded.
    assert_eq!(audited.grades("after"), "F");
    assert!(audited.report["outputs"].as_array().expect("outputs").iter().any(|output| output["because"] == "bad"));
    audited.found("bad").into_iter().map(|(_, message)| message).collect()
}

#[test]
fn a_sound_pipeline_is_proved_whatever_is_varied_and_to_an_a_if_it_is_signed() {
    let place = Place::run(SOUND);
    let audited = place.audit(&ALL);
    audited.assert_code(0);
    assert_eq!(audited.faults(), []);
    assert_eq!(audited.grades("first[seed=1]") + &audited.grades("second"), "BB");
    let audited = place.audit(&[&ALL[1..], &["--level=4", "--signers=signers"]].concat());
    audited.assert_code(0);
    for instance in ["first[seed=1]", "first[seed=2]", "second"] {
        assert_eq!(audited.grades(instance), "A", "{instance}");
    }
    let trials = audited.report["trials"].as_array().expect("trials");
    let varied: Vec<_> = trials.iter().map(|trial| trial["varied"].as_str().expect("text")).collect();
    let expected = ["1 thread, another path, another environment", "3 threads, killed on the way", "the other order"];
    assert_eq!(varied, expected);
    assert_eq!(
        fs::read_dir(place.path("."))
            .expect("the folder")
            .flatten()
            .filter(|entry| { entry.file_name().to_string_lossy().starts_with("spdflow-audit") })
            .count(),
        0,
        "the scratch folder stays"
    );
}

#[test]
fn a_sum_in_the_order_of_a_hash_set_is_never_the_same() {
    let messages = found("hash_order");
    assert!(
        messages[0].starts_with("made again it differs, it is never the same, also with nothing varied: "),
        "{messages:?}"
    );
    assert!(messages.iter().any(|message| message.contains("`value.json`, ")), "{messages:?}");
}

#[test]
fn a_sum_in_as_many_parts_as_threads_depends_on_their_number() {
    let messages = found("threads");
    assert!(messages[0].starts_with("made again it differs, it depends on the number of threads: "), "{messages:?}");
}

#[test]
fn a_stream_of_random_numbers_that_stages_share_depends_on_their_order() {
    // Two stages that draw from it: whichever comes first has the first number.
    let twins = "
[axes]
seed = [1, 2]
[stage.bad]
uses = \"faulty\"
matrix = [\"seed\"]
params = { fault = \"shared_stream\", seed = \"${seed}\" }
";
    let place = Place::run(twins);
    let audited = place.audit(&["--vary=order"]);
    audited.assert_code(12);
    for instance in ["bad[seed=1]", "bad[seed=2]"] {
        let found = audited.found(instance);
        let expected = "made again it differs, it depends on which stages run before it in the same process: ";
        assert!(found.iter().any(|(_, message)| message.starts_with(expected)), "{instance}: {found:?}");
    }
}

#[test]
fn a_stage_that_does_not_go_on_as_if_nothing_had_happened_depends_on_kills() {
    let messages = found("resume");
    let expected = "made again it differs, it depends on whether it is killed on the way: ";
    assert!(messages[0].starts_with(expected), "{messages:?}");
}

#[test]
fn a_description_that_is_never_the_same_is_a_difference_of_the_artifact() {
    let messages = found("summary");
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].contains("`artifact.json`, `files[0].summary`"), "{messages:?}");
}

#[test]
fn two_stages_of_one_key_are_made_again_together() {
    // Whichever is chosen, the other must not be given: it is the same result.
    let twins = SOUND.replace(
        "[stage.second]",
        "[stage.twin]\nuses = \"faulty\"\nparams = { fault = \"none\", seed = 1 }\n[stage.second]",
    );
    let place = Place::run(&twins);
    let audited = place.audit(&["--level=3", "--sample=0%"]);
    audited.assert_code(0);
    let grades = ["first[seed=1]", "twin", "first[seed=2]", "second"].map(|instance| audited.grades(instance));
    assert!(grades.contains(&"B".to_owned()) && grades.contains(&"C".to_owned()), "{grades:?}");
}

#[test]
fn a_stage_that_writes_down_where_it_works_depends_on_that() {
    let messages = found("path");
    let expected = "made again it differs, it depends on the folder in which it is made, or on something else";
    assert!(messages[0].starts_with(expected), "{messages:?}");
}

#[test]
fn a_stage_that_looks_at_the_time_zone_depends_on_the_environment() {
    let messages = found("environment");
    assert!(messages[0].starts_with("made again it differs, it depends on the environment: "), "{messages:?}");
}

#[test]
fn the_first_step_that_differs_is_named() {
    let messages = found("late_threads");
    let logged = messages.iter().find(|message| message.contains("`log.jsonl`")).expect("the log differs");
    assert!(logged.contains("step 7"), "{logged}");
    // Of a file that knows no steps, the other one tells when it began.
    let value = messages.iter().find(|message| message.contains("`value.json`")).expect("the value differs");
    assert!(value.contains("first at step 7"), "{value}");
}

#[test]
fn a_difference_within_the_tolerance_that_is_declared_is_a_b() {
    let declared = pipeline("threads").replace(
        "fault = \"threads\", seed = 7 }",
        "fault = \"threads\", seed = 7 }\ntolerances = { \"value.json\" = { relative = 1e-5 } }",
    );
    let place = Place::run(&declared);
    let audited = place.audit(&ALL);
    audited.assert_code(0);
    assert_eq!(audited.grades("bad"), "B");
    assert_eq!(audited.report["outputs"][2]["reproduced"], "within", "{:#}", audited.report["outputs"]);
    let tight = declared.replace("1e-5", "1e-12");
    fs::write(place.path("p.toml"), tight).expect("the pipeline");
    place.audit(&ALL).assert_code(12);
}

#[test]
fn what_was_made_again_is_kept_if_it_differs() {
    let place = Place::run(&pipeline("hash_order"));
    let outcome = place.faulty(&["audit", "p.toml", "--level=3", "--scratch=scratch"]);
    assert_eq!(outcome.code, Some(12), "{outcome:?}");
    let kept = fs::read_dir(place.path("scratch")).expect("the folder").flatten().next().expect("it is kept");
    let said = format!("what was made again is kept in `{}`", kept.path().display());
    assert!(outcome.stderr.contains(&said), "{}", outcome.stderr);
    assert!(kept.path().join("trial-1/out/p/bad/value.json").is_file());
}

#[test]
fn a_stage_that_fails_when_it_is_made_again_is_told() {
    let pipeline = r#"
[stage.a]
uses = "command"
params = { run = ["sh", "tool.sh", "{out.x}"], outputs = { x = "x.txt" } }
[stage.b]
uses = "command"
params = { run = ["sh", "-c", "echo b > {out.x}"], outputs = { x = "x.txt" } }
"#;
    let bench = crate::support::Bench::new().file("p.toml", pipeline);
    // A program that is found by its name alone, and is gone later.
    let bin = bench.path().join("bin");
    fs::create_dir(&bin).expect("a folder");
    let with_tool = pipeline.replace("\"sh\", \"tool.sh\"", "\"tool-of-this-test\"");
    fs::write(bench.path().join("p.toml"), with_tool).expect("the pipeline");
    let tool = bin.join("tool-of-this-test");
    fs::write(&tool, "#!/bin/sh\necho a > \"$1\"\n").expect("the tool");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&tool, executable).expect("permission");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let spdflow = |arguments: &[&str]| {
        let output = bench.command(arguments).env("PATH", &path).output().expect("the binary starts");
        crate::support::Outcome::of(output)
    };
    spdflow(&["run", "p.toml", "--quiet"]).assert(0, "", "");
    fs::remove_file(&tool).expect("the tool");
    let audited = spdflow(&["audit", "p.toml", "--level=3", "--json"]);
    assert_eq!(audited.code, Some(15), "{audited:?}");
    let report: serde_json::Value = serde_json::from_str(&audited.stdout).expect("JSON");
    assert_eq!(report["findings"][0]["fault"], "could_not_run");
    assert_eq!(report["findings"][0]["instance"], "a");
    let grades: Vec<_> =
        report["outputs"].as_array().expect("outputs").iter().map(|output| output["grade"].to_string()).collect();
    assert_eq!(grades, ["\"D\"", "\"D\"", "\"B\"", "\"B\""]);
}

#[test]
fn a_sample_has_one_of_every_kind_and_a_budget_what_fits() {
    let place = Place::run(SOUND);
    let made = |options: &[&str]| {
        let audited = place.audit(&[&["--level=3"], options].concat());
        audited.assert_code(0);
        audited.report["trials"][0]["results"].as_u64().expect("a number")
    };
    assert_eq!(made(&[]), 3);
    assert_eq!(made(&["--sample=0%"]), 2);
    assert_eq!(made(&["--sample=100%"]), 3);
    assert_eq!(made(&["--budget=1h"]), 3);
}

#[test]
fn the_toy_model_is_proved_to_an_a_at_every_output() {
    let place = Place(crate::support::Bench::new());
    place.make_key("key", "alice@example.org");
    let run = ["run", "tms", "--profile=smoke", "--sign-key=key", "--quiet"];
    place.0.run(&run).assert(0, "", "");
    let vary = "--vary=threads,path,env,kill,order";
    let outcome = place.0.run(&["audit", "tms", "--profile=smoke", "--level=4", vary, "--signers=signers", "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let outputs = report["outputs"].as_array().expect("outputs");
    assert!(outputs.len() > 40, "{}", outputs.len());
    for output in outputs {
        assert_eq!(output["grade"], "A", "{output}");
    }
}

#[test]
fn a_result_of_another_processor_is_told_to_be_one() {
    let place = Place::run(&pipeline("threads"));
    place.forge("bad", |record| record["machine"]["cpu_features"] = serde_json::json!(["avx9000"]));
    let audited = place.audit(&ALL);
    audited.assert_code(12);
    let hint = audited.report["findings"][0]["hint"].as_str().expect("a hint").to_owned();
    assert!(
        hint.starts_with("the recorded one was made on another processor (it had avx9000 that this one lacks"),
        "{hint}"
    );
}
