//! What runs when: urgency from recorded durations, and shares of threads, memory and GPUs.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use spdflow_engine::capacity::Gpu;
use spdflow_engine::error::RunError;
use spdflow_engine::event::Event;
use spdflow_engine::executor::local::Local;
use spdflow_engine::kind::{Device, StageKind};
use spdflow_engine::pipeline::{Pipeline, Resources};
use spdflow_engine::run::{RunOptions, run};
use spdflow_engine::workspace::Workspace;

use crate::support::{Place, chain, options, pipeline, slow, stage, sum};

/// Two chains and two single stages, of which `e` and the end of the second chain are the slow ones.
fn graph() -> Pipeline {
    pipeline(vec![
        stage("a", sum(), &[("add", 1)], &[]),
        stage("b", sum(), &[("add", 2)], &["a"]),
        stage("c", sum(), &[("add", 3)], &[]),
        stage("d", sum(), &[("add", 4)], &["c"]),
        stage("e", sum(), &[("add", 5)], &[]),
        stage("f", sum(), &[("add", 6)], &[]),
    ])
}

/// Makes the cache believe that stages of `p` took so long.
fn believe(place: &Place, durations: &[(&str, f64)]) {
    let line = |(instance, seconds): &(&str, f64)| format!("{seconds}\ttest.sum\tp\t{instance}\n");
    let text: String = durations.iter().map(line).collect();
    fs::write(place.cache().root().join("index/durations"), text).unwrap();
}

#[test]
fn the_longest_chain_by_recorded_durations_comes_first_and_ties_in_the_order_of_the_pipeline() {
    let place = Place::new();
    believe(&place, &[("a", 1.0), ("b", 2.0), ("c", 1.0), ("d", 9.0), ("e", 5.0), ("f", 3.0)]);
    // Chains: a b 3, c d 10, e 5, f 3.
    assert_eq!(place.run(&graph()).ran(), ["c", "d", "e", "a", "f", "b"]);
    let unknown = Place::new();
    assert_eq!(unknown.run(&graph()).ran(), ["a", "c", "b", "d", "e", "f"], "a second each: longer chains first");
}

#[test]
fn the_order_of_stages_and_how_many_run_at_once_change_no_byte() {
    let expected = Place::new();
    expected.run(&graph());
    let durations = [1.0, 5.0, 25.0, 125.0, 625.0, 3125.0];
    for rotation in 0..durations.len() {
        let place = Place::new();
        let names = ["a", "b", "c", "d", "e", "f"];
        let made_up: Vec<_> = (0..names.len()).map(|index| (names[index], durations[(index + rotation) % 6])).collect();
        believe(&place, &made_up);
        place.run_with(&graph(), &RunOptions { jobs: 1 + rotation % 4, ..options() });
        assert_eq!(place.tree(), expected.tree());
    }
}

#[test]
fn a_run_tells_how_long_it_will_take_if_durations_are_known() {
    let place = Place::new();
    believe(&place, &[("a", 10.0), ("b", 20.0), ("c", 30.0), ("d", 40.0), ("e", 50.0), ("f", 60.0)]);
    let outlook = |jobs| {
        let place = Place::new();
        believe(&place, &[("a", 10.0), ("b", 20.0), ("c", 30.0), ("d", 40.0), ("e", 50.0), ("f", 60.0)]);
        let report = place.run_with(&graph(), &RunOptions { jobs, threads: jobs, ..options() });
        let told = report.events.into_iter().find_map(|event| match event {
            Event::Outlook { seconds_left } => Some(seconds_left.round()),
            _ => None,
        });
        told.expect("durations are known")
    };
    assert_eq!(outlook(1), 210.0);
    // c 0–30, f 0–60, d 30–70, e 60–110, a 70–80, b 80–100: urgencies c 70, f 60, e 50, a 30, d 40, b 20.
    assert_eq!(outlook(2), 110.0);
    let events = Place::new().run(&graph()).events;
    assert!(!events.iter().any(|event| matches!(event, Event::Outlook { .. })), "nothing is known");
}

type MakeKind = fn() -> Arc<dyn StageKind>;

fn with_resources(kinds: &[(MakeKind, Resources)]) -> Pipeline {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let parameters = |index: usize| [("add", index as i64), ("steps", 4), ("milliseconds", 5)];
    let stages =
        kinds.iter().enumerate().map(|(index, (kind, _))| stage(NAMES[index], kind(), &parameters(index), &[]));
    let mut pipeline = pipeline(stages.collect());
    for (instance, (_, resources)) in pipeline.instances.iter_mut().zip(kinds) {
        instance.resources = resources.clone();
    }
    pipeline
}

fn gpus(ids: &[&str]) -> Vec<Gpu> {
    ids.iter().enumerate().map(|(ordinal, id)| Gpu { id: (*id).to_owned(), ordinal }).collect()
}

/// Runs and returns the most memory and GPUs that stages which ran at one moment asked for.
fn most_at_once(place: &Place, pipeline: &Pipeline, options: &RunOptions) -> (u64, usize) {
    let wanted: BTreeMap<String, &Resources> =
        pipeline.instances.iter().map(|instance| (instance.id.to_string(), &instance.resources)).collect();
    let (now, most) = (Mutex::new((0, 0)), Mutex::new((0, 0)));
    place.run_watched(pipeline, options, |event| {
        let mut now = now.lock().unwrap();
        match event {
            Event::Started { instance, .. } => {
                now.0 += wanted[instance].memory_bytes.unwrap_or(0);
                now.1 += wanted[instance].gpus;
            }
            Event::Finished { instance, .. } => {
                now.0 -= wanted[instance].memory_bytes.unwrap_or(0);
                now.1 -= wanted[instance].gpus;
            }
            _ => {}
        }
        let mut most = most.lock().unwrap();
        *most = (most.0.max(now.0), most.1.max(now.1));
    });
    most.into_inner().unwrap()
}

#[test]
fn stages_that_run_at_once_share_memory_and_gpus_and_each_is_told_which_gpus_are_its_own() {
    let wants = |memory: u64, gpus: usize| Resources { memory_bytes: Some(memory), gpus, ..Resources::default() };
    let small = (slow as MakeKind, wants(3, 1));
    let pipeline =
        with_resources(&[small.clone(), small.clone(), (slow, wants(8, 3)), small.clone(), small.clone(), small]);
    let place = Place::new();
    let options = RunOptions { jobs: 6, memory_bytes: Some(8), gpus: gpus(&["2", "5", "7"]), ..options() };
    let (memory, gpus) = most_at_once(&place, &pipeline, &options);
    assert!(memory <= 8 && gpus <= 3, "{memory} bytes and {gpus} GPUs at once");
    let mut given = Vec::new();
    let cache = place.cache();
    for result in cache.results().unwrap() {
        given.push((result.record.instance, result.record.usage.gpus.len()));
        assert!(result.record.usage.gpus.iter().all(|id| ["2", "5", "7"].contains(&id.as_str())));
    }
    given.sort();
    let expected = ["a", "b", "c", "d", "e", "f"].map(|name| (name.to_owned(), if name == "c" { 3 } else { 1 }));
    assert_eq!(given, expected);
}

#[test]
fn on_cuda_a_stage_computes_on_the_first_gpu_it_was_given_and_the_key_knows_nothing_of_it() {
    let plain = with_resources(&[(sum, Resources::default())]);
    let pipeline = with_resources(&[(sum, Resources { gpus: 1, ..Resources::default() })]);
    let place = Place::new();
    let on_cuda = || RunOptions { device: Device::Cuda(0), gpus: gpus(&["4", "5"])[1..].to_vec(), ..options() };
    place.run_with(&pipeline, &on_cuda());
    let usage = place.cache().results().unwrap().remove(0).record.usage;
    assert_eq!((usage.device.as_str(), &usage.gpus[..]), ("cuda:1", &["5".to_owned()][..]));
    assert_eq!(place.run_with(&plain, &RunOptions { device: Device::Cuda(3), ..options() }).outcomes, ["a cached"]);
}

#[test]
fn a_stage_that_asks_for_more_than_there_is_ends_the_run_before_it_begins() {
    let place = Place::new();
    let pipeline = with_resources(&[
        (sum, Resources::default()),
        (sum, Resources { memory_bytes: Some(64 << 30), ..Resources::default() }),
        (sum, Resources { gpus: 2, ..Resources::default() }),
    ]);
    let attempt = |options: &RunOptions| {
        let cache = place.cache();
        let workspace = Workspace::new(&cache, &place.out(), &pipeline);
        run(&pipeline, &workspace, options, &Local, &()).map(|summary| summary.results.len())
    };
    let small = RunOptions { memory_bytes: Some(16 << 30), gpus: gpus(&["3"]), ..options() };
    let Err(RunError::TooLarge(report)) = attempt(&small) else { panic!("there is too little") };
    let said: Vec<_> = report.diagnostics.iter().map(|said| (said.message.as_str(), said.hints[0].as_str())).collect();
    let expected = [
        (
            "stage `b` asks for 64GiB of memory, but the run has 16GiB",
            "give the run more, `--memory 64GiB`, or the stage less",
        ),
        ("stage `c` asks for 2 GPUs, but the run has 1 (3)", "name the GPUs that the run may use, as in `--gpus 0,1`"),
    ];
    assert_eq!(said, expected);
    assert!(!place.out().exists(), "nothing ran");
    let large = RunOptions { memory_bytes: Some(64 << 30), gpus: gpus(&["0", "1"]), ..options() };
    assert_eq!(attempt(&large).unwrap(), 3);
    // What is cached asks for nothing.
    assert_eq!(attempt(&small).unwrap(), 3);
}

#[test]
fn a_stage_for_which_there_is_no_room_waits_for_no_more_than_what_runs_already() {
    let place = Place::new();
    let wants = |memory: u64| Resources { memory_bytes: Some(memory), ..Resources::default() };
    let small = (slow as MakeKind, wants(1));
    // `a` needs everything; four small ones are ready all the time and could always fill what is left.
    let pipeline =
        with_resources(&[(slow, wants(4)), small.clone(), small.clone(), small.clone(), small, (slow, wants(2))]);
    fs::write(
        place.cache().root().join("index/durations"),
        "1\ttest.slow\tp\tb\n9\ttest.slow\tp\tf\n5\ttest.slow\tp\ta\n",
    )
    .unwrap();
    let options = RunOptions { jobs: 3, threads: 6, memory_bytes: Some(4), ..options() };
    let ran = place.run_with(&pipeline, &options).ran();
    assert_eq!(ran[..2], ["f", "a"], "f is the most urgent, then a is waited for: {ran:?}");
}

#[test]
fn more_jobs_than_the_system_has_threads_are_as_good_as_one_for_each_instance() {
    let options = RunOptions { jobs: 1_000_000, ..options() };
    assert_eq!(Place::new().run_with(&chain(23), &options).outcomes, ["a ran", "b ran", "c ran"]);
}
