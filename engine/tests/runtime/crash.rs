//! Interruption and `kill -9`: the next run goes on, and the bytes are those of a run that nobody disturbed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use spdflow_engine::event::{Event, RunStatus};
use spdflow_engine::kind::StopFlag;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::run::RunOptions;

use crate::support::{Place, options, pipeline, slow, stage, sum, tree};

fn slow_pipeline() -> Pipeline {
    pipeline(vec![
        stage("a", sum(), &[("add", 1)], &[]),
        stage("b", slow(), &[("steps", 60), ("milliseconds", 10)], &["a"]),
        stage("c", sum(), &[("add", 1)], &["b"]),
    ])
}

fn undisturbed() -> BTreeMap<String, Vec<u8>> {
    let place = Place::new();
    place.run(&slow_pipeline());
    place.tree()
}

#[test]
fn an_interrupted_run_resumes_and_gives_the_same_bytes() {
    let place = Place::new();
    let stop = StopFlag::new();
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| place.run_with(&slow_pipeline(), &RunOptions { stop: stop.clone(), ..options() }));
        std::thread::sleep(Duration::from_millis(300));
        stop.raise();
        run.join().unwrap()
    });
    assert_eq!(report.outcomes, ["a ran", "b interrupted", "c skipped"]);
    assert_eq!(report.summary.status, RunStatus::Interrupted);

    let report = place.run(&slow_pipeline());
    assert_eq!(report.outcomes, ["a cached", "b resumed", "c ran"]);
    assert!(report.events.iter().any(|event| matches!(event, Event::Resumed { step, .. } if *step > 0)));
    assert_eq!(place.tree(), undisturbed());
}

#[test]
fn a_stop_before_the_first_stage_skips_everything() {
    let place = Place::new();
    let stop = StopFlag::new();
    stop.raise();
    let report = place.run_with(&slow_pipeline(), &RunOptions { stop, ..options() });
    assert_eq!(report.outcomes, ["a skipped", "b skipped", "c skipped"]);
    assert_eq!(report.summary.status, RunStatus::Interrupted);
}

const CHILD: &str = "SPDFLOW_TEST_CRASH_DIR";

/// Not a test of its own: the process that the tests below kill.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let cache = spdflow_cache::Cache::open(&dir.join("cache")).unwrap();
    let pipeline = slow_pipeline();
    let workspace = spdflow_engine::workspace::Workspace::new(&cache, &dir.join("out"), &pipeline);
    let options = RunOptions { checkpoint_every: Duration::from_millis(30), ..options() };
    let executor = spdflow_engine::executor::local::Local;
    spdflow_engine::run::run(&pipeline, &workspace, &options, &executor, &()).unwrap();
}

fn start_child(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child"])
        .env(CHILD, dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_run_resumes_from_its_checkpoint() {
    let place = Place::new();
    let mut child = start_child(place.dir.path());
    let work = place.dir.path().join("cache/work");
    let has_checkpoint = || {
        let folders = std::fs::read_dir(&work).into_iter().flatten().flatten();
        folders.into_iter().any(|folder| folder.path().join("scratch/checkpoint").exists())
    };
    let begin = Instant::now();
    while !has_checkpoint() {
        assert!(begin.elapsed() < Duration::from_secs(20), "no checkpoint appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.out().join("p/b").exists(), "nothing partial is visible");

    let report = place.run(&slow_pipeline());
    assert_eq!(report.outcomes, ["a cached", "b resumed", "c ran"]);
    let Some(Event::Started { earlier_attempts, .. }) =
        report.events.iter().find(|event| matches!(event, Event::Started { instance, .. } if instance == "b"))
    else {
        panic!("b did not start")
    };
    assert_eq!(*earlier_attempts, 1);
    assert_eq!(place.tree(), undisturbed());
}

#[test]
fn a_run_killed_at_any_moment_leaves_a_state_from_which_the_next_one_goes_on() {
    let expected = undisturbed();
    for milliseconds in [0, 5, 20, 100, 400, 600, 640, 660, 700, 750] {
        let place = Place::new();
        let mut child = start_child(place.dir.path());
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        if place.out().exists() {
            let whole = |file: &str| !file.contains(".partial-");
            for (file, bytes) in tree(&place.out()).into_iter().filter(|(file, _)| whole(file)) {
                assert_eq!(expected.get(&file), Some(&bytes), "{file} after {milliseconds} ms");
            }
        }
        let report = place.run(&slow_pipeline());
        assert_eq!(report.summary.status, RunStatus::Done);
        assert!(report.warnings().is_empty(), "{:?} after {milliseconds} ms", report.warnings());
        assert_eq!(place.tree(), expected, "killed after {milliseconds} ms");
    }
}
