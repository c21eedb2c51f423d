//! What happens when files of the results or the cache are edited, damaged or lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use spdflow_cache::Lookup;
use spdflow_engine::value::Data;

use crate::support::{Place, Report, chain, chain_with, pipeline, stage, sum, vandal};

fn overwrite(path: &Path, text: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, text).unwrap();
}

fn blob_of(place: &Place, report: &Report, index: usize, file: &str) -> PathBuf {
    let cache = place.cache();
    let fingerprint = report.summary.results[index].fingerprint.unwrap();
    let Lookup::Hit(record) = cache.lookup(&fingerprint).unwrap() else { panic!("not a hit") };
    cache.blob_path(&record.artifact.outputs.iter().find(|output| output.path == file).unwrap().digest)
}

#[test]
fn an_edited_output_is_restored_with_a_warning() {
    let place = Place::new();
    place.run(&chain(23));
    let before = place.tree();
    overwrite(&place.out().join("p/b/number.json"), "666\n");
    let report = place.run(&chain(23));
    assert_eq!(report.outcomes, ["a cached", "b cached", "c cached"]);
    let folder = place.out().join("p/b");
    let expected =
        format!("b: `number.json` in `{}` was changed by somebody else; the result is restored", folder.display());
    assert_eq!(report.warnings(), [expected]);
    assert_eq!(place.tree(), before);
}

#[test]
fn an_output_edited_without_a_change_of_size_and_time_is_restored() {
    let place = Place::new();
    place.run(&chain(23));
    let before = place.tree();
    let file = place.out().join("p/b/number.json");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    overwrite(&file, "6\n");
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    assert_eq!(place.run(&chain(23)).warnings().len(), 1);
    assert_eq!(place.tree(), before);
}

#[test]
fn an_edited_output_never_reaches_the_cache() {
    let place = Place::new();
    place.run(&chain_with(23, 0));
    overwrite(&place.out().join("p/b/number.json"), "666\n");
    // c is new here, so it runs on b; it must see the true b.
    let mut other = chain_with(23, 0);
    other.instances[2].id.stage = "d".to_owned();
    other.instances[2].params = chain_with(0, 1).instances.swap_remove(1).params;
    place.run(&other);
    assert_eq!(place.number("d"), "4"); // (3 + 1) mod 10
}

#[test]
fn an_added_file_is_removed_with_a_warning() {
    let place = Place::new();
    place.run(&chain(23));
    let before = place.tree();
    fs::write(place.out().join("p/b/notes.txt"), "mine").unwrap();
    assert_eq!(place.run(&chain(23)).warnings().len(), 1);
    assert_eq!(place.tree(), before);
}

#[test]
fn a_damaged_blob_is_never_restored_but_computed_again() {
    let place = Place::new();
    let first = place.run(&chain(23));
    let before = place.tree();
    let blob = blob_of(&place, &first, 1, "number.json");
    overwrite(&blob, "9\n");
    fs::remove_dir_all(place.out()).unwrap();
    let report = place.run(&chain(23));
    // c is looked up while b runs again and makes the same bytes.
    assert_eq!(report.ran(), ["b"]);
    assert!(report.warnings()[0].starts_with("b: file `number.json` is damaged in the cache; it was moved to `"));
    assert_eq!(place.tree(), before);
    assert_eq!(fs::read_to_string(blob).unwrap(), "3\n");
    assert_eq!(fs::read_dir(place.cache().root().join("quarantine")).unwrap().count(), 1);
}

#[test]
fn a_damaged_blob_that_a_stage_needs_is_taken_back_from_the_results() {
    let place = Place::new();
    let first = place.run(&chain_with(23, 0));
    let blob = blob_of(&place, &first, 0, "number.json");
    overwrite(&blob, "99\n");
    let report = place.run(&chain_with(23, 1));
    assert_eq!(report.ran(), ["b", "c"]);
    assert_eq!(place.number("b"), "4"); // (23 + 1) mod 10
    assert_eq!(fs::read_to_string(blob).unwrap(), "23\n");
}

#[test]
fn a_damaged_blob_that_a_stage_needs_and_that_is_nowhere_else_is_computed_again() {
    let place = Place::new();
    let first = place.run(&chain_with(23, 0));
    overwrite(&blob_of(&place, &first, 0, "number.json"), "99\n");
    // The result is restored while it is damaged in the same size: only the check before b runs can see it.
    let file = place.out().join("p/a/number.json");
    fs::remove_file(&file).unwrap();
    let report = place.run(&chain_with(23, 1));
    assert_eq!(report.ran(), ["a", "b", "c"]);
    assert_eq!(place.number("b"), "4");
    assert_eq!(fs::read_to_string(file).unwrap(), "23\n");
}

#[test]
fn a_result_that_is_lost_during_the_run_is_made_again_before_it_is_read() {
    let place = Place::new();
    let mut vandal = stage("v", vandal(), &[], &["a"]);
    vandal.params.push(("remove", Data::String(place.out().join("p/a").display().to_string())));
    let stages = vec![stage("a", sum(), &[("add", 3)], &[]), vandal, stage("b", sum(), &[("add", 1)], &["a", "v"])];
    let report = place.run(&pipeline(stages));
    assert_eq!(report.ran(), ["a", "v", "a", "b"]);
    assert_eq!(report.outcomes, ["a ran", "v ran", "b ran"]);
    assert_eq!(place.number("b"), "4");
    assert_eq!(place.number("a"), "3");
}

#[test]
fn a_missing_blob_is_taken_back_from_the_results_or_computed_again() {
    let place = Place::new();
    let first = place.run(&chain(23));
    let before = place.tree();
    let blob = blob_of(&place, &first, 1, "number.json");
    fs::remove_file(&blob).unwrap();
    let report = place.run(&chain(23));
    assert!(report.ran().is_empty());
    assert_eq!(report.warnings(), ["b: file `number.json` was missing from the cache and was taken from the results"]);
    assert!(blob.is_file());

    fs::remove_file(&blob).unwrap();
    fs::remove_dir_all(place.out()).unwrap();
    assert_eq!(place.run(&chain(23)).ran(), ["b"]);
    assert_eq!(place.tree(), before);
}

#[test]
fn a_damaged_record_is_quarantined_and_its_stage_runs_again() {
    let place = Place::new();
    let first = place.run(&chain(23));
    let before = place.tree();
    let record = place.cache().record_path(&first.summary.results[1].fingerprint.unwrap());
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"value\": 3.0", "\"value\": 4.0")).unwrap();
    let report = place.run(&chain(23));
    assert_eq!(report.ran(), ["b"]);
    assert!(report.warnings()[0].contains("its bytes do not match its seal"), "{:?}", report.warnings());
    assert_eq!(place.tree(), before);
    assert_eq!(place.run(&chain(23)).outcomes, ["a cached", "b cached", "c cached"]);
}

#[test]
fn a_lost_or_damaged_index_costs_nothing_but_time() {
    let place = Place::new();
    place.run(&chain(23));
    let index = place.cache().root().join("index");
    for entry in fs::read_dir(&index).unwrap() {
        fs::write(entry.unwrap().path(), "nonsense").unwrap();
    }
    let report = place.run(&chain(23));
    assert_eq!(report.outcomes, ["a cached", "b cached", "c cached"]);
    assert!(report.warnings().is_empty());
    fs::remove_dir_all(&index).unwrap();
    assert!(place.run(&chain(23)).ran().is_empty());
}

#[test]
fn a_users_folder_in_the_place_of_a_result_is_not_touched() {
    let place = Place::new();
    fs::create_dir_all(place.out().join("p/b")).unwrap();
    fs::write(place.out().join("p/b/thesis.tex"), "x").unwrap();
    let pipeline = chain(1);
    let cache = place.cache();
    let workspace = spdflow_engine::workspace::Workspace::new(&cache, &place.out(), &pipeline);
    let executor = spdflow_engine::executor::local::Local;
    let error =
        spdflow_engine::run::run(&pipeline, &workspace, &crate::support::options(), &executor, &()).unwrap_err();
    let expected = format!(
        "the result of `b` belongs at `{}`, but something that spdflow did not make is there",
        place.out().join("p/b").display()
    );
    assert_eq!(error.to_string(), expected);
    assert!(place.out().join("p/b/thesis.tex").is_file());
}
