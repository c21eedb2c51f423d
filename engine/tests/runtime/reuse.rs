//! What runs and what is reused.

use std::fs;

use spdflow_engine::plan::{Action, Scope};
use spdflow_engine::run::RunOptions;

use crate::support::{Place, chain, chain_with, options, pipeline, stage, sum};

#[test]
fn everything_runs_once_and_then_is_cached() {
    let place = Place::new();
    let first = place.run(&chain(23));
    assert_eq!(first.outcomes, ["a ran", "b ran", "c ran"]);
    assert_eq!(place.number("c"), "103");
    let second = place.run(&chain(23));
    assert_eq!(second.outcomes, ["a cached", "b cached", "c cached"]);
    assert!(second.ran().is_empty());
}

#[test]
fn an_identical_result_of_a_producer_stops_the_cascade() {
    let place = Place::new();
    place.run(&chain(23));
    // 33 mod 10 = 23 mod 10, so b runs on a new input and makes the same bytes.
    let report = place.run(&chain(33));
    assert_eq!(report.outcomes, ["a ran", "b ran", "c cutoff"]);
    assert!(report.warnings().is_empty(), "{:?}", report.warnings());
}

#[test]
fn going_back_to_an_earlier_parameter_restores_from_the_cache() {
    let place = Place::new();
    place.run(&chain(21));
    let before = place.tree();
    place.run(&chain(22));
    let report = place.run(&chain(21));
    assert_eq!(report.outcomes, ["a cached", "b cached", "c cached"]);
    assert!(report.warnings().is_empty(), "{:?}", report.warnings());
    assert_eq!(place.tree(), before);
}

#[test]
fn deleted_outputs_are_restored() {
    let place = Place::new();
    place.run(&chain(23));
    let before = place.tree();
    fs::remove_dir_all(place.out()).unwrap();
    assert!(place.run(&chain(23)).ran().is_empty());
    assert_eq!(place.tree(), before);
}

#[test]
fn a_changed_parameter_runs_the_stage_and_what_depends_on_it() {
    let place = Place::new();
    place.run(&chain_with(1, 0));
    assert_eq!(place.run(&chain_with(1, 1)).outcomes, ["a cached", "b ran", "c ran"]);
}

#[test]
fn only_the_wanted_stage_and_what_it_needs_run() {
    let place = Place::new();
    let scope = Scope { targets: Some(vec![1]), ..Scope::default() };
    let report = place.run_with(&chain(1), &RunOptions { scope, ..options() });
    assert_eq!(report.outcomes, ["a ran", "b ran"]);
    assert!(!place.out().join("p/c").exists());
}

#[test]
fn a_forced_stage_runs_and_its_equal_result_keeps_the_rest() {
    let place = Place::new();
    place.run(&chain(1));
    let scope = Scope { force: vec![0], ..Scope::default() };
    let report = place.run_with(&chain(1), &RunOptions { scope, ..options() });
    assert_eq!(report.outcomes, ["a ran", "b cutoff", "c cutoff"]);
}

#[test]
fn the_plan_says_what_the_run_does() {
    let place = Place::new();
    let actions = |pipeline: &spdflow_engine::pipeline::Pipeline, scope: &Scope| {
        place.plan(pipeline, scope).steps.iter().map(|step| step.action).collect::<Vec<_>>()
    };
    let all = Scope::default();
    assert_eq!(actions(&chain(1), &all), [Action::Run, Action::Maybe, Action::Maybe]);
    place.run(&chain(1));
    assert_eq!(actions(&chain(1), &all), [Action::Fresh, Action::Fresh, Action::Fresh]);
    fs::remove_dir_all(place.out().join("p/b")).unwrap();
    assert_eq!(actions(&chain(1), &all), [Action::Fresh, Action::Cached, Action::Fresh]);
    assert_eq!(actions(&chain(2), &all), [Action::Run, Action::Maybe, Action::Maybe]);
    let force = Scope { force: vec![1], ..Scope::default() };
    assert_eq!(actions(&chain(1), &force), [Action::Fresh, Action::Run, Action::Maybe]);
    assert!(!place.out().join("p/b").exists(), "a plan changes nothing");
}

#[test]
fn stages_of_equal_content_are_computed_once() {
    let place = Place::new();
    let twins = pipeline(vec![stage("one", sum(), &[("add", 5)], &[]), stage("two", sum(), &[("add", 5)], &[])]);
    let report = place.run_with(&twins, &RunOptions { jobs: 2, ..options() });
    assert_eq!(report.ran().len(), 1);
    assert_eq!(place.number("one"), place.number("two"));
}

#[test]
fn the_results_do_not_depend_on_the_number_of_jobs() {
    let wide = || {
        let mut stages = vec![stage("a", sum(), &[("add", 1)], &[])];
        for (name, add) in [("b", 1), ("c", 2), ("d", 3), ("e", 4)] {
            stages.push(stage(name, sum(), &[("add", add)], &["a"]));
        }
        stages.push(stage("f", sum(), &[("add", 0)], &["b", "c", "d", "e"]));
        pipeline(stages)
    };
    let (one, four) = (Place::new(), Place::new());
    one.run(&wide());
    four.run_with(&wide(), &RunOptions { jobs: 4, ..options() });
    assert_eq!(one.number("f"), "14"); // 4·1 + (1 + 2 + 3 + 4)
    assert_eq!(one.tree(), four.tree());
}

#[test]
fn a_log_is_kept_in_the_record() {
    let place = Place::new();
    let report = place.run(&chain(1));
    let cache = place.cache();
    let fingerprint = report.summary.results[1].fingerprint.unwrap();
    let spdflow_cache::Lookup::Hit(record) = cache.lookup(&fingerprint).unwrap() else { panic!("not a hit") };
    let log = cache.read_blob(&record.log.unwrap()).unwrap().unwrap();
    assert_eq!(String::from_utf8(log).unwrap(), "sum of 1 inputs\n");
    let preimage: spdflow_engine::fingerprint::Preimage = serde_json::from_value(record.preimage.clone()).unwrap();
    assert_eq!(preimage.fingerprint().unwrap(), fingerprint);
}

#[test]
fn a_long_chain_needs_no_deep_stack() {
    let mut instances = pipeline(vec![stage("a", sum(), &[("add", 1)], &[])]);
    for index in 1..3000 {
        let mut next = pipeline(vec![stage("a", sum(), &[("modulo", 10)], &[])]).instances.remove(0);
        next.id.stage = format!("s{index}");
        next.inputs.insert("of".to_owned(), vec![index - 1]);
        instances.instances.push(next);
    }
    let place = Place::new();
    let scope = Scope { targets: Some(vec![2999]), ..Scope::default() };
    assert_eq!(place.plan(&instances, &scope).steps.len(), 3000);
}

#[test]
fn a_chain_of_twenty_thousand_stages_is_planned_without_recursion() {
    let names: Vec<&'static str> = (0..20_000).map(|number| &*format!("s{number}").leak()).collect();
    let stages = (0..names.len()).map(|number| {
        let above = number.checked_sub(1).map(|above| names[above]);
        stage(names[number], sum(), &[("add", 1)], above.as_slice())
    });
    let pipeline = pipeline(stages.collect());
    let place = Place::new();
    // A thread's stack is far smaller than that of the process.
    let plan = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        thread.spawn_scoped(scope, || place.plan(&pipeline, &Scope::default())).unwrap().join().unwrap()
    });
    assert_eq!(plan.steps.len(), 20_000);
    assert_eq!(plan.steps[0].action.word(), "run");
    assert!(plan.steps[1..].iter().all(|step| step.action.word() == "maybe"));
}
