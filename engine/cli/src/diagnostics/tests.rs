//! The forms of a report that need kinds of their own or no file. The whole texts are in `tests/mistakes.rs`.

use super::*;
use crate::test_kinds::{PIPELINE, load};

/// Returns what is printed for a pipeline with mistakes.
fn printed(text: &'static str, profile: Option<&str>, set: &[&str]) -> String {
    let Err(report) = load(text, profile, set) else { panic!("no mistake was found") };
    anstream::adapter::strip_str(&rendered(&report)).to_string()
}

#[track_caller]
fn assert_text(found: &str, expected: &str) {
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
}

#[test]
fn an_unknown_profile_has_no_place_in_the_file() {
    let found = printed(PIPELINE, Some("smoke"), &[]);
    let expected = "error: there is no profile `smoke`
  hint: the file has no profiles; a profile is a table `[profile.NAME.set]`
";
    assert_text(&found, expected);
}

#[test]
fn a_mistake_in_two_texts_shows_both() {
    let text = "[axes]\nseed = [\"x\"]\n[stage.a]\nuses = \"train.tms\"\nmatrix = [\"seed\"]\nparams = { seed = \"${seed}\" }\n";
    let found = printed(text, None, &["axes.seed=[\"y\"]"]);
    let expected = "error: parameter `seed` of stage `a`: expected a whole number, found a string `\"y\"`
 --> p.toml:6:19
  |
6 | params = { seed = \"${seed}\" }
  |                   ^^^^^^^^^
  |
 ::: --set:1:12
  |
1 | axes.seed=[\"y\"]
  |            --- from here
  |
  = hint: `${seed}` stands for `\"y\"` here
";
    assert_text(&found, expected);
}

#[test]
fn the_json_form_holds_places_and_hints() {
    let Err(report) = load(PIPELINE, None, &["stage.target.params.stpes=500"]) else { panic!("no mistake was found") };
    let expected = serde_json::json!({
        "version": 1,
        "errors": [{
            "message": "parameters of stage `target`: unknown key `stpes`",
            "labels": [{ "source": "--set", "line": 1, "column": 1, "start": 0, "end": 25, "text": "" }],
            "hints": ["did you mean `steps`?"],
        }],
        "error_count": 1,
    });
    assert_eq!(to_json(&report), expected);
}

#[test]
fn thousands_of_mistakes_are_counted_and_the_first_shown() {
    let text: String = (0..20_000).map(|stage| format!("[stage.s{stage}]\nuses = \"train.tsm\"\n")).collect();
    let found = printed(text.leak(), None, &[]);
    assert_eq!(found.matches("error: ").count(), 100);
    assert!(found.ends_with("found 20000 mistakes, of which these are the first 100\n"));
}
