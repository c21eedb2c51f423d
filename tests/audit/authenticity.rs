//! Level 4: the log of runs, what it vouches for, and signatures.

use std::fs;

use super::place::{Place, SOUND, overwrite};

const SIGNED: [&str; 3] = ["--level=4", "--no-run", "--signers=signers"];

/// Two runs: the second makes one stage anew, so the log has two lines.
fn two_runs() -> Place {
    let place = Place::run(SOUND);
    assert_eq!(place.faulty(&["run", "p.toml", "--force=second", "--quiet"]).code, Some(0));
    let signed = place.faulty(&["sign", "--key", "key"]);
    assert_eq!(signed.code, Some(0), "{signed:?}");
    place.audit(&SIGNED).assert_code(0);
    place
}

fn log(place: &Place) -> std::path::PathBuf {
    place.path(".spdflow/log/runs.jsonl")
}

#[test]
fn a_reordered_log_is_no_chain() {
    let place = two_runs();
    let text = fs::read_to_string(log(&place)).expect("the log");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    overwrite(&log(&place), format!("{}\n{}\n", lines[1], lines[0]).as_bytes(), false);
    let audited = place.audit(&SIGNED);
    audited.assert_code(14);
    let found = audited.found("");
    assert!(found.iter().all(|(fault, _)| fault == "broken_log"), "{found:?}");
    assert!(found[0].1.starts_with("line 1 of the log of runs (run `"), "{found:?}");
    assert!(found[0].1.contains("does not follow the line before it"), "{found:?}");
    assert_eq!(audited.grades("second"), "F");
}

#[test]
fn a_line_that_was_removed_or_edited_is_found() {
    let place = two_runs();
    let text = fs::read_to_string(log(&place)).expect("the log");
    let lines: Vec<&str> = text.lines().collect();
    overwrite(&log(&place), format!("{}\n", lines[1]).as_bytes(), false);
    let found = place.audit(&SIGNED).assert_code(14).found("");
    assert!(found.iter().any(|(fault, _)| fault == "broken_log"), "{found:?}");
    // The last line leaves its signature behind.
    overwrite(&log(&place), format!("{}\n", lines[0]).as_bytes(), false);
    let found = place.audit(&SIGNED).assert_code(14).found("");
    assert!(found[0].1.starts_with("a signature belongs to a line that the log of runs does not have"), "{found:?}");
    overwrite(&log(&place), text.replacen("\"results\":3", "\"results\":4", 1).as_bytes(), false);
    place.audit(&SIGNED).assert_code(14);
}

#[test]
fn a_reordered_journal_and_another_pipeline_text_are_not_what_was_logged() {
    let place = Place::run(SOUND);
    let run = place.last_run();
    let journal = run.path.join("journal.jsonl");
    let text = fs::read_to_string(&journal).expect("the journal");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.swap(1, 2);
    overwrite(&journal, (lines.join("\n") + "\n").as_bytes(), false);
    let audited = place.audit(&SIGNED);
    audited.assert_code(14);
    let message = format!("`journal.jsonl` of run `{}` is not what the log of runs says", run.id);
    assert_eq!(audited.found(""), [("changed_history".to_owned(), message)]);
    overwrite(&journal, text.as_bytes(), false);
    place.audit(&SIGNED).assert_code(0);
}

#[test]
fn evidence_that_was_edited_vouches_for_nothing() {
    let place = Place::run(SOUND);
    let evidence = place.last_run().path.join("evidence.jsonl");
    let text = fs::read_to_string(&evidence).expect("the evidence");
    let lines: Vec<&str> = text.lines().collect();
    overwrite(&evidence, format!("{}\n{}\n", lines[0], lines[1]).as_bytes(), false);
    let audited = place.audit(&SIGNED);
    audited.assert_code(14);
    let faults = audited.faults();
    assert!(faults.contains(&("changed_history".to_owned(), String::new())), "{faults:?}");
    assert!(faults.contains(&("not_logged".to_owned(), "second".to_owned())), "{faults:?}");
    fs::remove_file(&evidence).expect("the evidence");
    place.audit(&SIGNED).assert_code(14);
    fs::remove_dir_all(place.last_run().path).expect("the run");
    let audited = place.audit(&SIGNED);
    audited.assert_code(11);
    assert_eq!(audited.grades("second"), "D");
}

#[test]
fn a_signature_must_be_of_the_line_and_of_somebody_who_may_sign() {
    let place = Place::run(SOUND);
    assert_eq!(place.audit(&SIGNED).report["outputs"][0]["signers"][0], "alice@example.org");
    // Without a file of signers it is the key that signs.
    let audited = place.audit(&["--level=4", "--no-run"]);
    let signer = audited.report["outputs"][0]["signers"][0].as_str().expect("text").to_owned();
    assert!(signer.starts_with("SHA256:"), "{signer}");
    // A signature by somebody who may not sign is none, and takes nothing from the one beside it.
    let signers = fs::read_to_string(place.path("signers")).expect("the signers");
    place.make_key("mallory", "mallory@example.org");
    let strangers = fs::read_to_string(place.path("signers")).expect("the signers").replace(&signers, "");
    fs::write(place.path("signers"), strangers).expect("the signers");
    let audited = place.audit(&SIGNED);
    audited.assert_code(11);
    let found = audited.found("");
    assert_eq!((found.len(), found[0].0.as_str()), (1, "note"), "{found:?}");
    assert!(found[0].1.contains("is none of those in `signers` that might sign then"), "{found:?}");
    assert_eq!(audited.found("second")[0].0, "unsigned");
    fs::write(place.path("signers"), &signers).expect("the signers");
    assert_eq!(place.faulty(&["sign", "--key", "mallory.pub"]).code, Some(0), "a public key beside its private one");
    let audited = place.audit(&SIGNED);
    audited.assert_code(0);
    assert_eq!(audited.report["outputs"][0]["signers"], serde_json::json!(["alice@example.org"]));
    // A key counts for the time in which it was valid.
    for (validity, code) in [("valid-before=\"20200101\"", 11), ("valid-after=\"20200101\"", 0)] {
        fs::write(place.path("signers"), signers.replace(" ssh-", &format!(" {validity} ssh-"))).expect("the signers");
        place.audit(&SIGNED).assert_code(code);
    }
}

#[test]
fn another_result_for_a_key_that_was_logged_is_told_whoever_signs_it_later() {
    let place = Place::run(&SOUND.replace("fault = \"none\", seed", "fault = \"hash_order\", seed"));
    place.audit(&SIGNED).assert_code(0);
    let again = ["run", "p.toml", "--force=first[seed=1]", "--sign-key", "key", "--quiet"];
    assert_eq!(place.faulty(&again).code, Some(0));
    let audited = place.audit(&SIGNED);
    audited.assert_code(14);
    let found = audited.found("first[seed=1]");
    assert_eq!(found[0].0, "changed_record", "{found:?}");
    assert!(found[0].1.contains("for the same key"), "{found:?}");
}

#[test]
fn what_a_run_made_that_was_killed_before_it_was_logged_is_logged_by_the_next() {
    let place = Place::run(SOUND);
    let run = place.last_run().id;
    for name in ["runs.jsonl", "signatures"] {
        let path = place.path(".spdflow/log").join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
    }
    let not_logged = ("not_logged".to_owned(), "second".to_owned());
    assert!(place.audit(&SIGNED).faults().contains(&not_logged));
    fs::write(place.path(".spdflow/log/open").join(&run), "").expect("the mark of a run that is not logged yet");
    let again = place.faulty(&["run", "p.toml", "--sign-key", "key", "--quiet"]);
    again.assert(0, "", "");
    place.audit(&SIGNED).assert_code(0);
}

#[test]
fn an_unsigned_log_costs_the_a_and_is_told() {
    let place = Place(crate::support::Bench::new().file("p.toml", SOUND));
    place.make_key("key", "alice@example.org");
    assert_eq!(place.faulty(&["run", "p.toml", "--quiet"]).code, Some(0));
    let audited = place.audit(&["--level=4"]);
    audited.assert_code(11);
    assert_eq!(
        audited.found("second"),
        [("unsigned".to_owned(), "nobody has signed the log since it was made".to_owned())]
    );
    assert_eq!(audited.grades("second"), "B");
    let signed = place.faulty(&["sign", "--key", "key"]);
    assert_eq!(signed.code, Some(0), "{signed:?}");
    assert!(signed.stdout.starts_with("signed everything up to run 2"), "{}", signed.stdout);
    let audited = place.audit(&["--level=4"]);
    audited.assert_code(0);
    assert_eq!(audited.grades("second"), "A");
}

#[test]
fn a_key_that_cannot_sign_is_refused_and_the_results_stay() {
    let place = Place(crate::support::Bench::new().file("p.toml", SOUND).file("no-key", "nothing\n"));
    let outcome = place.faulty(&["run", "p.toml", "--quiet", "--sign-key", "no-key"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("error: `ssh-keygen` cannot sign with `no-key`: "), "{}", outcome.stderr);
    assert_eq!(place.faulty(&["status", "p.toml", "--exit-code"]).code, Some(0));
    let outcome = place.faulty(&["sign", "--key", "no-key", "--cache", "nowhere"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}
