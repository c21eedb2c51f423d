//! Runs with a remote: what is fetched instead of computed, what is sent, and what happens without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spdflow_cache::remote::Remote;
use spdflow_engine::event::{Event, Outcome};
use spdflow_engine::fingerprint::check_key;
use spdflow_engine::gather::{GatheredState, Source, gather};
use spdflow_engine::kind::Device;
use spdflow_engine::run::{RemoteOptions, RunOptions};

use crate::support::{Place, Report, chain, options, pipeline, stage, sum, tree};

fn at(remote: &str, is_read_only: bool) -> RunOptions {
    let remote = Arc::new(Remote::open(remote).unwrap());
    RunOptions { remote: Some(RemoteOptions { remote, is_read_only }), ..options() }
}

fn shared(folder: &Path) -> RunOptions {
    at(folder.to_str().unwrap(), false)
}

/// Returns the events about the remote, without what differs from run to run.
fn dealings(report: &Report) -> Vec<String> {
    let dealing = |event: &Event| match event {
        Event::Fetched { instance, files, .. } => Some(format!("{instance} fetched, {files} files")),
        Event::Sent { instance, files, .. } => Some(format!("{instance} sent, {files} files")),
        _ => None,
    };
    report.events.iter().filter_map(dealing).collect()
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files: Vec<_> = tree(folder).into_keys().collect();
    assert_eq!(files.len(), 1);
    folder.join(files.remove(0))
}

#[test]
fn what_one_place_computes_another_fetches() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Place::new(), Place::new());
    let report = first.run_with(&chain(23), &shared(dir.path()));
    assert_eq!(report.outcomes, ["a ran", "b ran", "c ran"]);
    // One file of `c` has the bytes of an earlier one.
    assert_eq!(dealings(&report), ["a sent, 4 files", "b sent, 4 files", "c sent, 3 files"]);
    let report = second.run_with(&chain(23), &shared(dir.path()));
    assert_eq!(report.outcomes, ["a cached", "b cached", "c cached"]);
    assert_eq!(dealings(&report), ["a fetched, 4 files", "b fetched, 4 files", "c fetched, 3 files"]);
    assert_eq!(report.warnings(), Vec::<String>::new());
    assert_eq!(second.tree(), first.tree());
    // What is here is not looked for there.
    let report = second.run_with(&chain(23), &shared(dir.path()));
    assert_eq!(dealings(&report), Vec::<String>::new());
    // A result that differs in its inputs only is computed on what was fetched.
    let third = Place::new();
    let longer = pipeline(vec![
        stage("a", sum(), &[("add", 23)], &[]),
        stage("b", sum(), &[("add", 0), ("modulo", 10)], &["a"]),
        stage("c", sum(), &[("add", 200)], &["b"]),
    ]);
    let report = third.run_with(&longer, &shared(dir.path()));
    assert_eq!(report.outcomes, ["a cached", "b cached", "c ran"]);
    assert_eq!(third.number("c"), "203");
}

#[test]
fn a_read_only_remote_is_not_written_to_and_a_forced_stage_does_not_ask_it() {
    let dir = tempfile::tempdir().unwrap();
    let remote = dir.path().join("remote");
    let read_only = at(remote.to_str().unwrap(), true);
    let place = Place::new();
    let report = place.run_with(&chain(23), &read_only);
    assert_eq!((dealings(&report), report.warnings()), (Vec::new(), Vec::new()));
    assert!(!remote.exists());
    Place::new().run_with(&chain(23), &shared(&remote));
    let forced = RunOptions {
        scope: spdflow_engine::plan::Scope { force: vec![0, 1, 2], ..Default::default() },
        ..at(remote.to_str().unwrap(), true)
    };
    assert_eq!(Place::new().run_with(&chain(23), &forced).outcomes, ["a ran", "b ran", "c ran"]);
}

#[test]
fn what_the_cache_lost_comes_back_from_the_remote() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new();
    place.run_with(&chain(23), &shared(dir.path()));
    fs::remove_dir_all(place.dir.path().join("cache/blobs")).unwrap();
    fs::create_dir(place.dir.path().join("cache/blobs")).unwrap();
    fs::remove_dir_all(place.out()).unwrap();
    let report = place.run_with(&chain(23), &shared(dir.path()));
    assert_eq!(report.outcomes, ["a cached", "b cached", "c cached"]);
    assert_eq!(dealings(&report).len(), 3);
}

#[test]
fn what_is_damaged_there_is_named_and_computed_here() {
    let dir = tempfile::tempdir().unwrap();
    let one = pipeline(vec![stage("a", sum(), &[("add", 23)], &[])]);
    Place::new().run_with(&one, &shared(dir.path()));
    let record = only_file(&dir.path().join("records"));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"add\": 23", "\"add\": 24")).unwrap();
    let place = Place::new();
    let report = place.run_with(&one, &at(dir.path().to_str().unwrap(), true));
    assert_eq!(report.outcomes, ["a ran"]);
    let name = record.strip_prefix(dir.path()).unwrap().display();
    let url = dir.path().display();
    let expected = format!("a: `{name}` of the remote `{url}` is not used: its bytes do not match its seal");
    assert_eq!(report.warnings(), [expected]);
}

#[test]
fn a_record_with_another_preimage_is_not_believed_though_its_seal_is_right() {
    let place = Place::new();
    let report = place.run(&chain(23));
    let cache = place.cache();
    let found = |index: usize| report.summary.results[index].fingerprint.unwrap();
    let record = |index: usize| {
        let spdflow_cache::Lookup::Hit(record) = cache.lookup(&found(index)).unwrap() else { panic!("not a hit") };
        record
    };
    let mut forged = record(0);
    assert_eq!(check_key(&forged), Ok(()));
    forged.preimage = record(1).preimage;
    assert_eq!(check_key(&forged), Err(format!("its preimage has the fingerprint {}", found(1))));
    forged.preimage = serde_json::json!({ "kind": "test.sum" });
    assert_eq!(check_key(&forged), Err("its preimage cannot be read: missing field `version`".to_owned()));
    cache.put_record(&forged).unwrap();
    let report = Place::new().run_with(&chain(23), &at(place.dir.path().join("cache").to_str().unwrap(), true));
    assert_eq!(report.outcomes, ["a ran", "b cached", "c cached"]);
    let warnings = report.warnings();
    assert!(warnings[0].ends_with("is not used: its preimage cannot be read: missing field `version`"), "{warnings:?}");
}

#[test]
fn a_run_goes_on_without_a_remote_that_does_not_do_its_part() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let place = Place::new();
    let report = place.run_with(&chain(23), &shared(dir.path()));
    assert_eq!(report.outcomes, ["a ran", "b ran", "c ran"]);
    let url = dir.path().display();
    let expected = format!(
        ": the remote `{url}` is not a spdflow cache: it holds `thesis.tex` but no `VERSION` (name an empty or new \
         folder); the run goes on without the remote"
    );
    assert_eq!(report.warnings(), [expected]);
}

#[test]
fn a_remote_that_takes_nothing_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    Place::new().run_with(&chain(23), &shared(dir.path()));
    // Only the record of c is there, and nothing can be written any more, whoever asks.
    for record in tree(&dir.path().join("records")).into_keys() {
        let path = dir.path().join("records").join(record);
        if !fs::read_to_string(&path).unwrap().contains("\"instance\": \"c\"") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::remove_dir_all(dir.path().join("tmp")).unwrap();
    fs::write(dir.path().join("tmp"), "").unwrap();
    let is_told = AtomicBool::new(false);
    // b is made when it is known that a cannot be sent, and c is looked for after that.
    let report = Place::new().run_watched(&chain(23), &shared(dir.path()), |event| match event {
        Event::Warning { .. } => is_told.store(true, Ordering::Release),
        Event::Started { instance, .. } if instance == "b" => {
            let begin = Instant::now();
            while !is_told.load(Ordering::Acquire) && begin.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        _ => {}
    });
    assert_eq!(report.outcomes, ["a ran", "b ran", "c cached"]);
    let [warning] = &report.warnings()[..] else { panic!("{:?}", report.warnings()) };
    assert!(warning.contains("cannot write `") && warning.ends_with("; the run goes on without sending results there"));
}

#[test]
fn a_stopped_run_leaves_sending_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new();
    let options = shared(dir.path());
    let stop = options.stop.clone();
    let is_end = |event: &Event| matches!(event, Event::Finished { instance, .. } if instance == "b");
    let report = place.run_watched(&chain(23), &options, |event| {
        if is_end(event) {
            stop.raise()
        }
    });
    assert_eq!(report.outcomes, ["a ran", "b ran", "c skipped"]);
    assert_eq!(report.warnings(), Vec::<String>::new());
    assert!(!dealings(&report).contains(&"b sent, 4 files".to_owned()));
}

#[test]
fn results_are_gathered_as_their_inputs_become_known() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().to_str().unwrap();
    let pair = pipeline(vec![
        stage("a", sum(), &[("add", 23)], &[]),
        stage("b", sum(), &[("add", 0), ("modulo", 10)], &["a"]),
    ]);
    Place::new().run_with(&pair, &shared(dir.path()));
    let place = Place::new();
    let cache = place.cache();
    let lease = cache.lease().unwrap();
    let states = |source| {
        let gathered = gather(&chain(23), &cache, &lease, &Device::Cpu.into(), source, &|_| ()).unwrap();
        let word = |state: &GatheredState| match state {
            GatheredState::Known => "known".to_owned(),
            GatheredState::Taken(transfer) => format!("taken, {} files", transfer.files),
            other => format!("{other:?}").to_lowercase(),
        };
        gathered.iter().map(|result| word(&result.state)).collect::<Vec<_>>()
    };
    assert_eq!(states(None), ["absent", "unknown", "unknown"]);
    let remote = Remote::open(url).unwrap();
    let look = Source { remote: &remote, dry_run: true };
    assert_eq!(states(Some(look)), ["taken, 4 files", "taken, 4 files", "absent"]);
    assert_eq!(states(None), ["absent", "unknown", "unknown"]);
    assert_eq!(states(Some(Source { dry_run: false, ..look })), ["taken, 4 files", "taken, 4 files", "absent"]);
    assert_eq!(states(None), ["known", "known", "absent"]);
    assert_eq!(place.run(&chain(23)).outcome(2), Outcome::Ran);
}
