//! What the binary says about command lines and pipelines that are wrong: all of it, with the exit code.

use crate::support::Bench;

#[test]
fn a_missing_file() {
    Bench::new().run(&["check", "missing.toml"]).assert(
        2,
        "",
        "error: there is no pipeline file `missing.toml`\n  hint: `spdflow pipelines` lists those that are shipped\n",
    );
    Bench::new().run(&["check", "tmss"]).assert(
        2,
        "",
        "error: there is no pipeline file `tmss`\n  hint: did you mean `tms`?\n",
    );
}

#[test]
fn a_folder_in_place_of_a_file() {
    let bench = Bench::new().file("x/y", "");
    bench.run(&["check", "x"]).assert(2, "", "error: `x` is a folder, expected a pipeline file\n");
}

#[test]
fn a_file_that_is_not_text() {
    let bench = Bench::new().file("p.toml", [0xff, 0xfe]);
    bench.run(&["check", "p.toml"]).assert(2, "", "error: cannot read pipeline `p.toml`: it is not UTF-8 text\n");
}

#[test]
fn toml_syntax_errors_are_reported_together() {
    let bench = Bench::new().file("p.toml", "[stage.a]\nuses = train.tms\nmatrix = \nparams = { steps = 1\n");
    let expected = "error: expected a value, found `train.tms`
 --> p.toml:2:8
  |
2 | uses = train.tms
  |        ^^^^^^^^^
  |
  = hint: a text needs quotes: `\"train.tms\"`

error: expected a value, found nothing
 --> p.toml:3:10
  |
3 | matrix = 
  |          ^

error: `{` is never closed
 --> p.toml:4:10
  |
4 | params = { steps = 1
  |          ^

found 3 mistakes
";
    bench.run(&["check", "p.toml"]).assert(2, "", expected);
}

#[test]
fn bases_in_a_cycle() {
    let bench = Bench::new().file("a.toml", "base = \"b.toml\"\n").file("b.toml", "\nbase = \"a.toml\"\n");
    let expected = "error: pipeline files form a cycle of bases: `a.toml` → `b.toml` → `a.toml`
 --> a.toml:1:8
  |
1 | base = \"b.toml\"
  |        ^^^^^^^^
  |
 ::: b.toml:2:8
  |
2 | base = \"a.toml\"
  |        --------
";
    bench.run(&["check", "a.toml"]).assert(2, "", expected);
}

#[test]
fn a_missing_base() {
    let bench = Bench::new().file("x/p.toml", "base = \"lib/base.toml\"\n");
    let expected = "error: cannot read pipeline `x/lib/base.toml`: no such file
 --> x/p.toml:1:8
  |
1 | base = \"lib/base.toml\"
  |        ^^^^^^^^^^^^^^^
  |
  = hint: `base` is relative to the folder of the file it stands in
";
    bench.run(&["graph", "x/p.toml"]).assert(2, "", expected);
}

#[test]
fn an_unknown_key_profile_and_set_argument_in_one_report() {
    let bench = Bench::new().file("p.toml", "[pipelin]\nname = \"x\"\n[profile.smoke.set]\n");
    let expected = "error: there is no profile `smok`
  hint: did you mean `smoke`?

error: unknown key `pipelin` at the top of the pipeline
 --> p.toml:1:2
  |
1 | [pipelin]
  |  ^^^^^^^
  |
  = hint: did you mean `pipeline`?

error: expected `KEY=VALUE` after `--set`, found `steps`
 --> --set:1:1
  |
1 | steps
  | ^^^^^

error: the value of `pipeline.name` is not TOML: `[` is never closed
 --> --set:1:15
  |
1 | pipeline.name=[1
  |               ^

found 4 mistakes
";
    let arguments = ["check", "p.toml", "--profile", "smok", "--set", "steps", "--set", "pipeline.name=[1"];
    bench.run(&arguments).assert(2, "", expected);
}

#[test]
fn an_unknown_stage_kind_of_the_kinds_command() {
    let outcome = Bench::new().run(&["kinds", "no.such.kind"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(
        outcome.stderr.starts_with("error: there is no stage kind `no.such.kind`\n  hint: known kinds: "),
        "{outcome:?}"
    );
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in
        [&["chekc"][..], &["check"], &["run", "tms", "--jobs", "0"], &["run", "tms", "--device", "tpu"], &[]]
    {
        let outcome = Bench::new().run(arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn json_puts_the_report_on_stdout_too() {
    let bench = Bench::new().file("p.toml", "a = 1\n");
    let outcome = bench.run(&["check", "p.toml", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("one JSON document");
    assert_eq!((outcome.code, &document["version"]), (Some(2), &1.into()));
    assert_eq!(document["errors"][0]["message"], "unknown key `a` at the top of the pipeline");
    assert_eq!(document["errors"][0]["labels"][0]["line"], 1);
}

#[test]
fn colours_are_used_only_when_asked_for() {
    let bench = Bench::new().file("p.toml", "a = 1\n");
    assert!(!bench.run(&["check", "p.toml"]).stderr.contains('\u{1b}'));
    assert!(bench.run(&["check", "p.toml", "--color", "always"]).stderr.contains('\u{1b}'));
    assert!(!bench.run(&["check", "p.toml", "--color", "never"]).stderr.contains('\u{1b}'));
}

#[test]
fn help_and_version_succeed() {
    let bench = Bench::new();
    bench.run(&["--version"]).assert(0, concat!("spdflow ", env!("CARGO_PKG_VERSION"), "\n"), "");
    assert_eq!(bench.run(&["--help"]).code, Some(0));
}

#[test]
fn a_reader_that_has_gone_is_not_a_bug() {
    let bench = Bench::new().file("p.toml", "a = 1\n");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = bench.command(&["check", "p.toml", "--json"]).stdout(writer).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.starts_with("error: unknown key `a`"), "{stderr}");
}

#[test]
fn windows_line_ends_and_byte_order_marks_are_no_mistakes() {
    let bench = Bench::new().file("p.toml", "\u{feff}[pipeline]\r\nname = \"x\"\r\nnme = 3\r\n");
    let expected = "error: unknown key `nme` in `[pipeline]`
 --> p.toml:3:1
  |
3 | nme = 3
  | ^^^
  |
  = hint: did you mean `name`?
";
    bench.run(&["check", "p.toml"]).assert(2, "", expected);
}

#[test]
fn values_nested_without_end_are_refused() {
    for open in ["[", "{a="] {
        let bench = Bench::new().file("p.toml", format!("a = {}", open.repeat(100_000)));
        let outcome = bench.run(&["check", "p.toml"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{:.300}", outcome.stderr);
    }
}
