//! The whole text of reports, as a user without colours sees it.

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
fn an_unknown_key_and_an_unknown_kind_are_two_mistakes_of_one_report() {
    let found = printed("[stage.target]\nuses = \"train.tsm\"\nparam = { steps = 3 }\n", None, &[]);
    let expected = "error: there is no stage kind `train.tsm`
 --> p.toml:2:8
  |
2 | uses = \"train.tsm\"
  |        ^^^^^^^^^^^
  |
  = hint: did you mean `train.tms`?

error: unknown key `param` in stage `target`
 --> p.toml:3:1
  |
3 | param = { steps = 3 }
  | ^^^^^
  |
  = hint: did you mean `params`?

found 2 mistakes
";
    assert_text(&found, expected);
}

#[test]
fn an_unknown_stage() {
    let found = printed(
        "[stage.a]\nuses = \"train.tms\"\n[stage.b]\nuses = \"decompose.spd\"\ninputs = { target = \"x\" }\n",
        None,
        &[],
    );
    let expected = "error: there is no stage `x`
 --> p.toml:5:21
  |
5 | inputs = { target = \"x\" }
  |                     ^^^
  |
  = hint: known stages: `a`, `b`
";
    assert_text(&found, expected);
}

#[test]
fn a_wrong_type_and_numbers_out_of_range() {
    let text = "[stage.target]
uses = \"train.tms\"
[stage.target.params]
steps = -1
seed = \"zero\"
losses = [{ kind = \"faithfulness\" }]
";
    let found = printed(text, None, &[]);
    let expected =
        "error: parameter `steps` of stage `target`: expected a whole number from 0 to 4294967295, found `-1`
 --> p.toml:4:9
  |
4 | steps = -1
  |         ^^

error: parameter `seed` of stage `target`: expected a whole number, found a string `\"zero\"`
 --> p.toml:5:8
  |
5 | seed = \"zero\"
  |        ^^^^^^

error: parameter `losses[0]` of stage `target`: missing key `coeff`
 --> p.toml:6:11
  |
6 | losses = [{ kind = \"faithfulness\" }]
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^

found 3 mistakes
";
    assert_text(&found, expected);
}

#[test]
fn a_number_that_the_kind_refuses() {
    let found = printed("[stage.a]\nuses = \"train.tms\"\nparams.probability = 1.5\n", None, &[]);
    let expected = "error: parameter `probability` of stage `a`: must be in [0, 1], found 1.5
 --> p.toml:3:22
  |
3 | params.probability = 1.5
  |                      ^^^
";
    assert_text(&found, expected);
}

#[test]
fn an_input_of_the_wrong_kind() {
    let text = "[stage.a]
uses = \"train.tms\"
[stage.b]
uses = \"plot\"
inputs = { decompositions = \"a\" }
";
    let found = printed(text, None, &[]);
    let expected = "error: input `decompositions` of stage `b` takes an artifact of kind `decompose.spd` or `plot`, but `a` makes one of kind `train.tms`
 --> p.toml:5:29
  |
5 | inputs = { decompositions = \"a\" }
  |                             ^^^
";
    assert_text(&found, expected);
}

#[test]
fn a_cycle_shows_the_line_of_every_hop() {
    let text = "[stage.a]
uses = \"plot\"
inputs = { decompositions = \"b\" }
[stage.b]
uses = \"plot\"
inputs = { decompositions = \"a\" }
";
    let found = printed(text, None, &[]);
    let expected = "error: stages wait for one another in a cycle: `a` → `b` → `a`
 --> p.toml:3:29
  |
3 | inputs = { decompositions = \"b\" }
  |                             ^^^ `a` takes `b`
...
6 | inputs = { decompositions = \"a\" }
  |                             --- `b` takes `a`
  |
  = hint: remove one of these inputs
";
    assert_text(&found, expected);
}

#[test]
fn a_wrong_set_argument_is_shown_with_its_place() {
    let found = printed(PIPELINE, None, &["stage.target.params.stpes=500"]);
    let expected = "error: parameters of stage `target`: unknown key `stpes`
 --> --set:1:1
  |
1 | stage.target.params.stpes=500
  | ^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: did you mean `steps`?
";
    assert_text(&found, expected);
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
