//! Level 2: edited records, swapped outputs, and drift of the pipeline and the program.

use std::fs;

use serde_json::json;

use super::place::{Place, SOUND, json as read, write_sealed};

#[test]
fn an_edited_metric_is_not_what_the_artifact_says() {
    let place = Place::run(SOUND);
    let value = read(&place.record("second"))["metrics"][0]["value"].clone();
    place.forge("second", |record| record["metrics"][0]["value"] = json!(0.5));
    let audited = place.audit(&[]);
    audited.assert_code(13);
    let message = format!("its record says that metric `value` is 0.5, the artifact says {value}");
    assert_eq!(audited.found("second")[0], ("not_its_manifest".to_owned(), message));
    // The table of the artifact shows the number that was.
    assert!(audited.faults().contains(&("misquoted".to_owned(), "second".to_owned())));
    // And the log of runs knows the record by its digest.
    let audited = place.audit_at_rest();
    let faults = audited.faults();
    assert!(faults.contains(&("changed_record".to_owned(), "second".to_owned())), "{faults:?}");
}

#[test]
fn an_edited_parameter_does_not_have_the_key() {
    let place = Place::run(SOUND);
    place.forge("first[seed=2]", |record| record["preimage"]["params"]["seed"] = json!(3));
    let audited = place.audit(&[]);
    audited.assert_code(13);
    let found = audited.found("first[seed=2]");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "not_its_key");
    let expected =
        "its record does not follow from what it says it was computed from: its preimage has the fingerprint ";
    assert!(found[0].1.starts_with(expected), "{found:?}");
    assert_eq!((audited.grades("first[seed=1]"), audited.grades("second")), ("C".to_owned(), "F".to_owned()));
}

#[test]
fn a_swapped_output_is_not_the_one_that_the_artifact_names() {
    let place = Place::run(SOUND);
    let other = read(&place.record("first[seed=1]"))["artifact"]["outputs"][1].clone();
    let record = read(&place.record("first[seed=2]"));
    assert_eq!(
        (&other["path"], &record["artifact"]["outputs"][1]["path"]),
        (&json!("value.json"), &json!("value.json"))
    );
    // The digest of the artifact has to be that of its outputs, or the record would not be believed at all.
    let outputs: Vec<spdflow_engine::cache::Output> = [record["artifact"]["outputs"][0].clone(), other.clone()]
        .map(|output| serde_json::from_value(output).expect("an output"))
        .into();
    let digest = spdflow_engine::cache::artifact_digest(&outputs).to_string();
    place.forge("first[seed=2]", |record| {
        record["artifact"]["outputs"][1] = other;
        record["artifact"]["digest"] = json!(digest);
    });
    let audited = place.audit(&[]);
    let found = audited.found("first[seed=2]");
    let expected =
        "its record and the artifact name different files: `value.json` (was a file put in another's place?)";
    assert!(found.contains(&("not_its_manifest".to_owned(), expected.to_owned())), "{found:?}");
    audited.assert_code(13);
    // Two results that change places as a whole agree with themselves; what was made from them does not know them.
    let place = Place::run(SOUND);
    let paths = ["first[seed=1]", "first[seed=2]"].map(|instance| place.record(instance));
    let records = [read(&paths[0]), read(&paths[1])];
    for (path, (own, other)) in paths.iter().zip([(&records[0], &records[1]), (&records[1], &records[0])]) {
        let mut forged = own.clone();
        forged["artifact"] = other["artifact"].clone();
        forged["metrics"] = other["metrics"].clone();
        write_sealed(path, forged);
    }
    fs::remove_dir_all(place.path("out")).expect("removed");
    let audited = place.audit(&[]);
    assert_ne!(audited.code(), 0, "{:#}", audited.report);
    let audited = place.audit(&["--level=3"]);
    let faults = audited.faults();
    assert!(faults.contains(&("not_reproduced".to_owned(), "first[seed=1]".to_owned())), "{faults:?}");
}

#[test]
fn a_number_that_a_file_shows_must_be_the_recorded_one() {
    let place = Place::run(&SOUND.replace("fault = \"none\", seed", "fault = \"misquote\", seed"));
    let audited = place.audit(&[]);
    audited.assert_code(13);
    let recorded = read(&place.record("first[seed=1]"))["metrics"][0]["value"].as_f64().expect("a number");
    let found = audited.found("first[seed=1]");
    let (fault, message) = &found[0];
    assert_eq!((found.len(), fault.as_str()), (1, "misquoted"), "{found:?}");
    assert!(
        message.starts_with("it shows `value` as ") && message.ends_with(&format!(", recorded is {recorded}")),
        "{message}"
    );
}

#[test]
fn a_change_of_the_pipeline_is_told_field_by_field() {
    let place = Place::run(SOUND);
    fs::write(place.path("p.toml"), SOUND.replace("seed = [1, 2]", "seed = [1, 3]")).expect("the pipeline");
    let audited = place.audit(&["--set=stage.second.params.milliseconds=1"]);
    audited.assert_code(11);
    let faults = audited.faults();
    assert!(faults.contains(&("no_record".to_owned(), "first[seed=3]".to_owned())), "{faults:?}");
    fs::write(place.path("p.toml"), SOUND).expect("the pipeline");
    let audited = place.audit(&["--set=stage.second.params.milliseconds=1"]);
    audited.assert_code(10);
    let expected = "the pipeline has changed since this result: `params.milliseconds` 0 → 1";
    assert_eq!(audited.found("second"), [("drift".to_owned(), expected.to_owned())]);
    assert_eq!(audited.grades("second"), "C");
    // What has changed since cannot be made again from the pipeline as it is.
    let audited = place.audit(&["--set=stage.second.params.milliseconds=1", "--level=3"]);
    audited.assert_code(15);
}

#[test]
fn a_program_that_was_built_from_other_sources_is_told_and_settled_by_making_the_result_again() {
    let place = Place::run(SOUND);
    let sources = read(&place.record("second"))["build"]["sources"].as_str().expect("a digest").to_owned();
    let other = "0".repeat(64);
    for instance in ["first[seed=1]", "first[seed=2]", "second"] {
        place.forge(instance, |record| record["build"]["sources"] = json!(other));
    }
    let audited = place.audit(&[]);
    audited.assert_code(10);
    let expected = format!("it was made by another program than this: sources 000000000000 → {}", &sources[..12]);
    assert_eq!(audited.found("second"), [("other_build".to_owned(), expected.clone())]);
    let audited = place.audit(&["--level=3"]);
    audited.assert_code(0);
    assert_eq!(audited.found("second"), [("note".to_owned(), format!("{expected}; this one makes the same"))]);
}

#[test]
fn a_result_that_is_not_the_locked_one_is_told() {
    let place = Place::run(SOUND);
    assert_eq!(place.faulty(&["lock", "p.toml", "--quiet"]).code, Some(0));
    place.audit(&[]).assert_code(0);
    let lock = fs::read_to_string(place.path("p.lock")).expect("the lock file");
    let artifact = read(&place.record("second"))["artifact"]["digest"].as_str().expect("text").to_owned();
    fs::write(place.path("p.lock"), lock.replace(&artifact, &"1".repeat(64))).expect("the lock file");
    let audited = place.audit(&[]);
    audited.assert_code(10);
    let found = audited.found("second");
    assert_eq!(found[0].0, "other_than_locked", "{found:?}");
    assert!(found[0].1.contains("made other bytes"), "{found:?}");
}

#[test]
fn a_seed_that_makes_no_difference_is_pointed_out() {
    let place = Place::run(SOUND);
    assert!(place.audit(&[]).found("first[seed=2]").is_empty());
    let place = Place::run(&SOUND.replace("fault = \"none\", seed", "fault = \"ignores_seed\", seed"));
    let audited = place.audit(&[]);
    audited.assert_code(0);
    let expected = "it has another seed than `first[seed=1]` and made the same bytes";
    assert_eq!(audited.found("first[seed=2]"), [("note".to_owned(), expected.to_owned())]);
}
