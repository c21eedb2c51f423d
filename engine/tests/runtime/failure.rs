//! Stages that fail, panic or do not keep their word.

use std::fs;
use std::time::Duration;

use spdflow_engine::event::{Event, Outcome, RunStatus};
use spdflow_engine::pipeline::{Pipeline, Policy};
use spdflow_engine::run::RunOptions;
use spdflow_engine::value::Data;

use crate::support::{Place, broken, options, pipeline, slow, stage, sum};

fn with_broken(how: &str, unless: &str) -> Pipeline {
    let mut middle = stage("b", broken(), &[], &["a"]);
    middle.params = vec![("how", Data::String(how.to_owned())), ("unless", Data::String(unless.to_owned()))];
    pipeline(vec![
        stage("a", sum(), &[("add", 1)], &[]),
        middle,
        stage("c", sum(), &[("add", 1)], &["b"]),
        stage("d", sum(), &[("add", 2)], &[]),
    ])
}

#[test]
fn a_failure_ends_the_run_and_keeps_what_was_finished() {
    let place = Place::new();
    let report = place.run(&with_broken("fail", ""));
    assert_eq!(report.outcomes, ["a ran", "b failed", "c skipped", "d skipped"]);
    assert_eq!(report.summary.status, RunStatus::Failed);
    let failure = &report.summary.failures[0];
    assert_eq!(failure.message, "the loss is NaN");
    assert_eq!(failure.hint.as_deref(), Some("lower the learning rate"));
    assert!(!failure.is_bug);
    let log = "about to break\nerror: the loss is NaN\nhint: lower the learning rate\n";
    assert_eq!(fs::read_to_string(failure.log.as_ref().unwrap()).unwrap(), log);
    assert!(!place.out().join("p/b").exists(), "nothing of a failed stage is visible");
    assert_eq!(place.run(&with_broken("fail", "")).outcome(0), Outcome::Cached);
}

#[test]
fn keep_going_does_what_does_not_depend_on_the_failure() {
    let place = Place::new();
    let report = place.run_with(&with_broken("fail", ""), &RunOptions { keep_going: true, ..options() });
    assert_eq!(report.outcomes, ["a ran", "b failed", "c skipped", "d ran"]);
    assert_eq!(report.summary.status, RunStatus::SomeFailed);
}

#[test]
fn a_stage_that_failed_runs_again_and_nothing_partial_is_left() {
    let place = Place::new();
    let switch = place.dir.path().join("switch");
    let pipeline = || with_broken("fail", switch.to_str().unwrap());
    place.run(&pipeline());
    fs::write(&switch, "").unwrap();
    let report = place.run(&pipeline());
    assert_eq!(report.outcomes, ["a cached", "b ran", "c ran", "d ran"]);
    assert!(!place.tree().keys().any(|file| file.contains("partial")));
    assert_eq!(fs::read_dir(place.cache().root().join("work")).unwrap().count(), 0);
}

#[test]
fn a_panic_is_our_bug_and_the_others_go_on() {
    let place = Place::new();
    let report = place.run_with(&with_broken("panic", ""), &RunOptions { keep_going: true, ..options() });
    assert_eq!(report.outcomes, ["a ran", "b failed", "c skipped", "d ran"]);
    let failure = &report.summary.failures[0];
    assert!(failure.is_bug);
    assert!(failure.message.starts_with("index 3 is out of range ("), "{}", failure.message);
    assert!(failure.message.contains("support.rs:"), "{}", failure.message);
}

#[test]
fn undeclared_and_unwritten_outputs_are_errors() {
    let cases = [
        ("undeclared", "wrote the file `partial.txt` without declaring it as an output"),
        ("unwritten", "declared the output `ghost.json` but did not write it"),
    ];
    for (how, message) in cases {
        let place = Place::new();
        let report = place.run(&with_broken(how, ""));
        assert_eq!(report.summary.failures[0].message, message);
        assert_eq!(report.outcome(1), Outcome::Failed);
    }
}

#[test]
fn a_stage_that_takes_too_long_fails_and_goes_on_from_its_checkpoint_when_it_may_try_again() {
    let slow_with = |retries| {
        let mut pipeline = pipeline(vec![stage("a", slow(), &[("steps", 40), ("milliseconds", 5)], &[])]);
        pipeline.instances[0].policy = Policy { retries, timeout: Some(Duration::from_millis(80)) };
        pipeline
    };
    let place = Place::new();
    let report = place.run(&slow_with(0));
    assert_eq!(report.outcomes, ["a failed"]);
    let failure = &report.summary.failures[0];
    assert_eq!(failure.message, "it was stopped because it took longer than its timeout of 0.08 s");
    assert_eq!(failure.hint.as_deref(), Some("raise `timeout` of `[stage.a]`, or leave it out"));
    let report = place.run(&slow_with(20));
    assert_eq!(report.outcomes, ["a resumed"]);
    let retried = |event: &&Event| matches!(event, Event::Retrying { .. });
    assert!(report.events.iter().any(|event| retried(&event)), "40 steps of 5 ms need more than one attempt");
    let undisturbed = Place::new();
    undisturbed.run(&pipeline(vec![stage("a", slow(), &[("steps", 40), ("milliseconds", 5)], &[])]));
    assert_eq!(place.tree(), undisturbed.tree());
}

#[test]
fn a_bug_is_not_tried_again() {
    let mut pipeline = with_broken("panic", "");
    pipeline.instances[1].policy.retries = 5;
    let report = Place::new().run(&pipeline);
    assert!(!report.events.iter().any(|event| matches!(event, Event::Retrying { .. })));
}
