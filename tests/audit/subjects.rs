//! What may be audited: a pipeline, a run, any file that a stage made, a bundle; and whom it may be compared with.

use std::fs;
use std::process::Command;

use super::place::{Place, SOUND, json, overwrite};

#[test]
fn a_run_is_audited_from_the_texts_it_kept() {
    let place = Place::run(SOUND);
    let run = place.last_run().id;
    // The pipeline has changed since, or is gone; the run has its own copy.
    fs::remove_file(place.path("p.toml")).expect("the pipeline");
    for subject in [&[run.as_str()][..], &[]] {
        let outcome = place.faulty(&[&["audit"], subject, &["--json", "--level=3"]].concat());
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        assert_eq!(report["subject"], format!("run `{run}` of pipeline `p`"));
        assert_eq!(report["outputs"].as_array().expect("outputs").len(), 6);
    }
}

#[test]
fn a_file_leads_to_the_run_that_made_it() {
    let place = Place::run(SOUND);
    fs::copy(place.path("out/p/first/seed=2/value.json"), place.path("figure 1.json")).expect("a copy");
    let audited = place.audit_of("figure 1.json", &["--level=3"]);
    audited.assert_code(0);
    let expected = format!(
        "`figure 1.json`, which is `value.json` of `first[seed=2]`, by run `{}` of pipeline `p`",
        place.last_run().id
    );
    assert_eq!(audited.report["subject"], expected);
    assert_eq!(audited.report["outputs"].as_array().expect("outputs").len(), 2, "nothing but what it needs");
    fs::write(place.path("figure 1.json"), "{ \"value\": 0.5 }\n").expect("an edited copy");
    let outcome = place.faulty(&["audit", "figure 1.json"]);
    assert_eq!(outcome.code, Some(11), "{outcome:?}");
    let message = "error: no stage of a run in the cache `.spdflow` has made a file with the bytes of `figure 1.json`\n  \
                   hint: `spdflow trace figure 1.json` says what is nearest\n";
    assert_eq!(outcome.stderr, message);
}

#[test]
fn a_bundle_is_audited_where_nothing_else_is() {
    let place = Place::run(SOUND);
    assert_eq!(place.faulty(&["bundle", "p.toml", "-o", "p.spdflow.tar.zst"]).code, Some(0));
    for name in [".spdflow", "out"] {
        fs::rename(place.path(name), place.path(&format!("away{name}"))).expect("moved");
    }
    let audited = place.audit_of("p.spdflow.tar.zst", &["--level=4", "--signers=signers"]);
    audited.assert_code(0);
    assert_eq!(audited.grades("second"), "A");
    assert_eq!(audited.report["subject"], "bundle `p.spdflow.tar.zst` of pipeline `p`");
    assert!(!place.path(".spdflow").exists(), "a cache was made");
    // One that is cut or flipped anywhere is no bundle any more.
    let bytes = fs::read(place.path("p.spdflow.tar.zst")).expect("the bundle");
    for at in [bytes.len() / 5, bytes.len() / 2, bytes.len() - 5] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        fs::write(place.path("flipped.spdflow.tar.zst"), &flipped).expect("a copy");
        let outcome = place.faulty(&["audit", "flipped.spdflow.tar.zst"]);
        assert!([2, 7, 13].contains(&outcome.code.expect("a code")), "{at}: {outcome:?}");
    }
}

#[test]
fn what_a_bundle_lost_is_named() {
    let place = Place::run(SOUND);
    assert_eq!(place.faulty(&["bundle", "p.toml", "-o", "p.spdflow.tar.zst"]).code, Some(0));
    let blob = place.blob("second", "value.json");
    let name = blob.strip_prefix(place.cache().root()).expect("below").display().to_string();
    // Packed again with another blob in the place of one.
    let shell = format!(
        "set -e; mkdir t; cd t; tar --zstd -xf ../p.spdflow.tar.zst; chmod u+w cache/{name}; echo other > cache/{name}; \
         tar --zstd -cf ../q.spdflow.tar.zst bundle.json $(find . -type f ! -name bundle.json | sed 's|^./||')"
    );
    let packed = Command::new("sh").args(["-c", &shell]).current_dir(place.0.path()).output().expect("a shell");
    assert!(packed.status.success(), "{packed:?}");
    let audited = place.audit_of("q.spdflow.tar.zst", &[]);
    audited.assert_code(13);
    assert_eq!((audited.grades("second"), audited.grades("first[seed=1]")), ("CF".to_owned(), "C".to_owned()));
}

#[test]
fn a_bundle_of_digests_says_what_it_lacks() {
    let place = Place::run(SOUND);
    let made = place.faulty(&["bundle", "p.toml", "--digests-only", "-o", "p.spdflow.tar.zst"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let audited = place.audit_of("p.spdflow.tar.zst", &[]);
    audited.assert_code(11);
    assert!(audited.faults().iter().all(|(fault, _)| fault == "left_out"), "{:?}", audited.faults());
    assert_eq!(audited.grades("second"), "D");
}

#[test]
fn somebody_elses_results_for_the_same_keys_are_compared() {
    let place = Place::run(SOUND);
    assert_eq!(place.faulty(&["run", "p.toml", "--cache=other", "--out=o", "--quiet"]).code, Some(0));
    let audited = place.audit(&["--against=other", "--level=5", "--no-run", "--signers=signers"]);
    audited.assert_code(0);
    assert_eq!(
        audited.report["challenge"],
        serde_json::json!({ "against": "other", "same": 3, "other": 0, "absent": 0 })
    );
    // A stage that is never the same twice is another one there.
    let never = SOUND.replace("fault = \"none\", seed", "fault = \"hash_order\", seed");
    let place = Place::run(&never);
    assert_eq!(place.faulty(&["run", "p.toml", "--cache=other", "--out=o", "--quiet"]).code, Some(0));
    let audited = place.audit(&["--against=other"]);
    audited.assert_code(16);
    let found = audited.found("first[seed=2]");
    let (fault, message) = found.iter().find(|(fault, _)| fault == "challenged").expect("another result");
    assert_eq!(fault, "challenged");
    assert!(message.starts_with("`other` has other bytes for the same key: "), "{message}");
    assert!(message.contains("here cpu on ") && message.contains("there cpu on "), "{message}");
    let nobody = place.audit(&["--against=nowhere"]);
    assert_eq!(nobody.report["challenge"]["absent"], 3, "{:#}", nobody.report);
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    let place = Place::run(SOUND);
    let refused = |options: &[&str], message: &str| {
        let outcome = place.faulty(&[&["audit", "p.toml"], options].concat());
        outcome.assert(2, "", &format!("error: {message}\n"));
    };
    refused(
        &["--level=1", "--vary=path"],
        "`--vary` is about making results again, which level 1 does not; give `--level 3` or more",
    );
    refused(&["--level=2", "--sample=5%"], "`--sample` and `--budget` are about level 3, not 2");
    refused(&["--level=5"], "level 5 compares with somebody else's results; say whose with `--against PLACE`");
    let outcome = place.faulty(&["audit", "p.toml", "--signers=nowhere"]);
    assert!(outcome.stderr.starts_with("error: cannot read the signers `nowhere`: "), "{outcome:?}");
    let outcome = place.faulty(&["audit", "nothing"]);
    outcome.assert(
        2,
        "",
        "error: `nothing` is no pipeline, no run of the cache `.spdflow` and no file\n  \
         hint: `spdflow cache ls --runs` lists the runs\n",
    );
}

#[test]
fn the_report_is_text_markdown_html_or_json() {
    let place = Place::run(SOUND);
    let value = place.path("out/p/second/value.json");
    overwrite(&value, b"{ \"value\": 1.0 }\n", true);
    let text = place.faulty(&["audit", "p.toml"]);
    let expected = "pipeline `p.toml`

stage          grade  made again  signed by  because of
first[seed=1]  C
first[seed=2]  C
second         F

integrity: `second`: `value.json` was changed in its place after it was made
  --> out/p/second/value.json
  hint: `--repair` takes it from where it is still intact, or out of the way so that it is made again
";
    assert_eq!((text.code, text.stdout.as_str()), (Some(13), expected), "{text:?}");
    let md = place.faulty(&["audit", "p.toml", "--md"]);
    assert!(md.stdout.starts_with("# Audit of pipeline `p.toml`\n"), "{}", md.stdout);
    assert!(md.stdout.contains("| second | F |"), "{}", md.stdout);
    let html = place.faulty(&["audit", "p.toml", "--html"]);
    assert!(html.stdout.starts_with("<!doctype html>\n"), "{}", html.stdout);
    assert!(html.stdout.contains("<b>integrity</b> <code>second</code>: <code>value.json</code>"), "{}", html.stdout);
    let quiet = place.faulty(&["audit", "p.toml", "--quiet"]);
    assert!(quiet.stdout.starts_with("integrity: `second`"), "{}", quiet.stdout);
    let report = place.audit(&[]).report;
    assert_eq!((&report["version"], &report["exit"], &report["level"]), (&1.into(), &13.into(), &2.into()));
    assert_eq!(report["findings"][0]["class"], "integrity");
    assert_eq!(json(&place.record("second"))["kind"], "sound");
}
