//! Two runs at once over one cache.

use spdflow_engine::event::Event;
use spdflow_engine::pipeline::Pipeline;

use crate::support::{Place, pipeline, slow, stage, sum};

fn slow_pipeline() -> Pipeline {
    pipeline(vec![
        stage("a", slow(), &[("steps", 20), ("milliseconds", 10)], &[]),
        stage("b", sum(), &[("add", 1)], &["a"]),
        stage("c", sum(), &[("add", 2)], &["b"]),
    ])
}

#[test]
fn two_runs_at_once_compute_every_key_once() {
    let place = Place::new();
    let reports = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| place.run(&slow_pipeline()))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });
    let mut ran: Vec<_> = reports.iter().flat_map(super::support::Report::ran).collect();
    ran.sort();
    assert_eq!(ran, ["a", "b", "c"]);
    let us = Some(std::process::id());
    let waited =
        |event: &Event| matches!(event, Event::Waiting { instance, process } if instance == "a" && *process == us);
    assert_eq!(reports.iter().filter(|report| report.events.iter().any(waited)).count(), 2);
}
