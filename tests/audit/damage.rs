//! Levels 0 and 1: damaged, edited and missing files of every class, and `--repair`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::place::{Place, SOUND, flip, overwrite};
use crate::support::snapshot;

/// Every file below a folder.
fn files(root: &Path) -> Vec<PathBuf> {
    let all = snapshot(root).into_keys();
    all.filter(|path| path.is_file()).collect()
}

/// Returns what kind of file of a cache or of results it is.
fn class(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).expect("a file of the place");
    let mut parts: Vec<String> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts[0] == "out" {
        return format!("out/{}", parts.pop().expect("a name"));
    }
    parts.remove(0);
    match parts[0].as_str() {
        "blobs" | "records" | "index" | "leases" | "work" => parts[0].clone(),
        "runs" => format!("runs/{}", parts[2]),
        "log" if parts.len() > 2 => format!("log/{}", parts[1]),
        _ => parts.join("/"),
    }
}

#[test]
fn one_flipped_bit_in_any_file_is_found_or_changes_nothing() {
    let place = Place::run(SOUND);
    place.audit_at_rest().assert_code(0);
    // What is made anew if it is lost, and never believed without a look at what it is about.
    let disposable: BTreeSet<&str> = ["index", "gc.lock", ".gitignore", "work", "log/lock"].into();
    let mut classes = BTreeSet::new();
    for root in [".spdflow", "out"] {
        for path in files(&place.path(root)) {
            let bytes = fs::read(&path).expect("a file");
            if bytes.is_empty() {
                continue;
            }
            let before = fs::metadata(&path).expect("a file").modified().expect("a time");
            let class = class(place.0.path(), &path);
            flip(&path);
            let outcome = place.faulty(&["audit", "p.toml", "--level=4", "--no-run", "--signers=signers", "--json"]);
            let code = outcome.code.expect("an exit code");
            let shown = path.display();
            if disposable.contains(class.as_str()) {
                assert_eq!(code, 0, "{shown}: {outcome:?}");
            } else if class == "VERSION" {
                assert_eq!(code, 7, "{shown}: {outcome:?}");
            } else {
                assert!([13, 14].contains(&code), "{shown}: {outcome:?}");
                let real = path.canonicalize().expect("a path").display().to_string();
                let is_named = outcome.stdout.contains(&real)
                    || outcome.stdout.contains(&path.display().to_string())
                    || outcome
                        .stdout
                        .contains(path.strip_prefix(place.0.path()).expect("below").to_str().expect("text"));
                assert!(is_named, "{shown} is not named: {}", outcome.stdout);
            }
            overwrite(&path, &bytes, false);
            fs::File::options().write(true).open(&path).expect("a file").set_modified(before).expect("a time");
            classes.insert(class);
        }
    }
    place.audit_at_rest().assert_code(0);
    let expected = [
        "VERSION",
        "blobs",
        "records",
        "log/runs.jsonl",
        "log/signatures",
        "out/artifact.json",
        "out/value.json",
        "runs/evidence.jsonl",
        "runs/journal.jsonl",
        "runs/plan.jsonl",
        "runs/replay.sh",
        "runs/results",
        "runs/results.lock",
        "runs/run.json",
        "runs/source-0-p.toml",
        "runs/summary.json",
    ];
    for class in expected {
        assert!(classes.contains(class), "no file of class `{class}` was tried: {classes:?}");
    }
}

#[test]
fn missing_truncated_rotten_and_edited_files_are_told_apart() {
    let place = Place::run(SOUND);
    let blob = place.blob("second", "value.json");
    let bytes = fs::read(&blob).expect("the blob");
    let fault = |code| {
        let audited = place.audit(&[]);
        audited.assert_code(code);
        let found = audited.found("second");
        assert_eq!((audited.grades("second"), audited.grades("first[seed=1]")), ("CF".to_owned(), "C".to_owned()));
        let known: Vec<_> = found.into_iter().filter(|(_, message)| message.contains("in the cache")).collect();
        assert_eq!(known.len(), 1, "{known:?}");
        known[0].clone()
    };
    let said = |fault: &str, message: &str| (fault.to_owned(), message.to_owned());
    let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    overwrite(&blob, &other, false);
    let message = "`value.json` has other bytes in the cache, though nobody wrote to it since it was made";
    assert_eq!(fault(13), said("rotten", message));
    overwrite(&blob, &other, true);
    assert_eq!(fault(13), said("edited", "`value.json` was changed in the cache after it was made"));
    overwrite(&blob, &bytes[..3], true);
    let message = format!("`value.json` is cut short in the cache: 3 of {} bytes", bytes.len());
    assert_eq!(fault(13), said("truncated", &message));
    fs::remove_file(&blob).expect("the blob");
    assert_eq!(fault(13), said("missing", "`value.json` is missing in the cache"));
}

#[test]
fn a_result_that_was_edited_in_its_place_is_found_and_a_file_that_does_not_belong_there() {
    let place = Place::run(SOUND);
    let value = place.path("out/p/second/value.json");
    let bytes = fs::read(&value).expect("the file");
    overwrite(&value, b"{ \"value\": 1.0 }\n", true);
    let audited = place.audit(&[]);
    audited.assert_code(13);
    assert_eq!(audited.faults(), [("edited".to_owned(), "second".to_owned())]);
    assert_eq!(audited.found("second")[0].1, "`value.json` was changed in its place after it was made");
    overwrite(&value, &bytes, true);
    place.audit(&[]).assert_code(0);
    fs::write(place.path("out/p/second/more.txt"), "x").expect("a file");
    let audited = place.audit(&[]);
    audited.assert_code(13);
    assert_eq!(audited.found("second")[0].1, "`more.txt` lies among its files, but is none of them");
    // Results that are not in place are none that anybody could have edited.
    fs::remove_dir_all(place.path("out")).expect("removed");
    place.audit(&[]).assert_code(0);
}

#[test]
fn a_deleted_input_is_missed() {
    let place = Place::run(SOUND);
    fs::remove_file(place.blob("first[seed=2]", "value.json")).expect("the blob");
    let audited = place.audit(&[]);
    audited.assert_code(13);
    assert_eq!(audited.faults(), [("missing".to_owned(), "first[seed=2]".to_owned())]);
    assert_eq!(audited.grades("second"), "F", "what was made from it");
    fs::remove_file(place.record("first[seed=2]")).expect("the record");
    let audited = place.audit(&[]);
    audited.assert_code(11);
    let faults = audited.faults();
    assert!(faults.contains(&("no_record".to_owned(), "first[seed=2]".to_owned())), "{faults:?}");
    assert_eq!(audited.grades("first[seed=1]"), "C");
}

#[test]
fn an_audit_changes_nothing_whatever_it_finds() {
    let place = Place::run(SOUND);
    flip(&place.blob("second", "value.json"));
    flip(&place.record("first[seed=1]"));
    flip(&place.path("out/p/first/seed=2/value.json"));
    let before = [snapshot(&place.path(".spdflow")), snapshot(&place.path("out"))];
    let outcome = place.faulty(&["audit", "p.toml", "--level=4", "--vary=kill", "--signers=signers"]);
    assert_eq!(outcome.code, Some(13), "{outcome:?}");
    for level in ["0", "1", "2", "3"] {
        place.faulty(&["audit", "--level", level]);
    }
    let after = [snapshot(&place.path(".spdflow")), snapshot(&place.path("out"))];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (path, was) in before {
            assert!(after[path] == *was, "{} was changed", path.display());
        }
    }
}

#[test]
fn no_cache_is_made_to_be_audited() {
    let bench = crate::support::Bench::new().file("p.toml", SOUND);
    let outcome = bench.run(&["audit", "tms"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.starts_with("error: there is no cache in `.spdflow`\n"), "{}", outcome.stderr);
    assert!(!bench.path().join(".spdflow").exists());
}

#[test]
fn what_is_damaged_is_repaired_from_the_results_in_place() {
    let place = Place::run(SOUND);
    let blob = place.blob("second", "value.json");
    flip(&blob);
    let audited = place.audit(&["--repair"]);
    audited.assert_code(0);
    let repairs: Vec<_> =
        audited.report["repairs"].as_array().expect("repairs").iter().map(|text| text.to_string()).collect();
    assert_eq!(repairs.len(), 2, "{repairs:?}");
    assert!(repairs[0].contains("`second`: `value.json` was moved to `"), "{repairs:?}");
    assert!(repairs[1].contains("`second`: `value.json` was taken from `out/p/second`"), "{repairs:?}");
    assert_eq!(fs::read_dir(place.path(".spdflow/quarantine")).expect("a folder").count(), 1);
    // And the results in place from the cache.
    flip(&place.path("out/p/second/value.json"));
    place.audit(&[]).assert_code(13);
    place.audit(&["--repair"]).assert_code(0);
    place.audit_at_rest().assert_code(0);
}

#[test]
fn what_is_lost_is_taken_from_another_cache_or_made_again_by_the_next_run() {
    let place = Place::run(SOUND);
    let other = place.path("other");
    assert_eq!(place.faulty(&["run", "p.toml", "--cache=other", "--out=other-out", "--quiet"]).code, Some(0));
    let lose = || {
        fs::remove_dir_all(place.path("out")).expect("removed");
        flip(&place.record("first[seed=1]"));
        flip(&place.blob("second", "value.json"));
    };
    lose();
    let audited = place.audit(&["--repair", "--against=other"]);
    audited.assert_code(0);
    assert!(other.exists());
    place.faulty(&["run", "p.toml", "--quiet"]).assert(0, "", "");
    lose();
    // Without it, the record is out of the way, and the stage is as one that never ran.
    let audited = place.audit(&["--repair"]);
    audited.assert_code(13);
    assert!(
        audited
            .faults()
            .iter()
            .all(|(fault, _)| ["missing", "no_record", "drift", "input_unknown"].contains(&fault.as_str()))
    );
    place.faulty(&["run", "p.toml", "--quiet"]).assert(0, "", "");
    place.audit(&[]).assert_code(0);
}
