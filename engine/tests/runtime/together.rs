//! Several runs at once over one cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use spdflow_engine::event::Event;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::value::Data;

use crate::support::{Place, Stage, gated, options, pipeline, stage, sum};

fn gated_pipeline(gate: &Path) -> Pipeline {
    let gate = Data::String(gate.to_str().unwrap().to_owned());
    pipeline(vec![
        Stage { name: "a", kind: gated(), params: vec![("gate", gate)], inputs: Vec::new() },
        stage("b", sum(), &[("add", 1)], &["a"]),
        stage("c", sum(), &[("add", 2)], &["b"]),
    ])
}

#[test]
fn runs_at_once_compute_every_key_once() {
    let place = Place::new();
    let gate = place.dir.path().join("gate");
    let waiting = Mutex::new(BTreeSet::new());
    // The stage that runs ends only when both other runs have said that they wait for it.
    let run = |number: usize| {
        let watch = |event: &Event| {
            if matches!(event, Event::Waiting { instance, .. } if instance == "a") {
                let mut waiting = waiting.lock().unwrap();
                waiting.insert(number);
                if waiting.len() == 2 {
                    fs::write(&gate, "open").unwrap();
                }
            }
        };
        place.run_watched(&gated_pipeline(&gate), &options(), watch)
    };
    let reports = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|number| scope.spawn(move || run(number))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
    });
    let mut ran: Vec<_> = reports.iter().flat_map(super::support::Report::ran).collect();
    ran.sort();
    assert_eq!(ran, ["a", "b", "c"]);
}
