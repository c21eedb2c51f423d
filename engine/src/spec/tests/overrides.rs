//! Bases, profiles and `--set` arguments.

use super::*;

#[test]
fn a_profile_then_set_arguments_change_the_file() {
    let pipeline = load_with(&[("p.toml", TMS)], Some("smoke"), &[]).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(param(&pipeline, "target", "steps"), "5");
    assert_eq!(ids(&pipeline)[1], "decompose[lr=0.001,seed=1]");
    let set = ["stage.target.params.steps=6", "stage.target.params.sizes=[1, 2]", "stage.target.params.sizes[1] = 9"];
    let pipeline = load_with(&[("p.toml", TMS)], Some("smoke"), &set).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(param(&pipeline, "target", "steps"), "6");
    assert_eq!(param(&pipeline, "target", "sizes"), "[1, 9]");
}

#[test]
fn a_set_value_is_toml_and_a_bare_word_is_a_text() {
    let text = "[stage.a]\nuses = \"echo\"\nparams = { title = \"${name}\", lr = \"${lr}\" }\n";
    let pipeline = good(text, &["name=cosine", "lr=3"]);
    assert_eq!(param(&pipeline, "a", "title"), "\"cosine\"");
    assert_eq!(param(&pipeline, "a", "lr"), "3.0");
    let pipeline = good(text, &["name= \"a b\" ", "lr=1e-3", "pipeline.name=other"]);
    assert_eq!(param(&pipeline, "a", "title"), "\"a b\"");
    assert_eq!(pipeline.name, "other");
    assert_eq!(
        pipeline.sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(),
        ["p.toml", "--set", "--set", "--set"]
    );
}

#[test]
fn wrong_set_arguments_are_shown() {
    let text = "[axes]\nseed = [0]\n[stage.target]\nuses = \"train.tms\"\nmatrix = [\"seed\"]\nparams.sizes = [1]\n";
    let wrong = [
        ("steps", "--set:1:1 expected `KEY=VALUE` after `--set`, found `steps`"),
        ("a..b=1", "--set:1:1 `a..b` is no path: expected a key of letters, digits, `-` and `_`, found ``"),
        ("stage.target.params.lr=[1", "--set:1:24 `[` is never closed"),
        (
            "stage.target.params.lr=",
            "--set:1:1 expected a value after `stage.target.params.lr=`, found nothing [an empty text is `stage.target.params.lr=\"\"`]",
        ),
        ("stage.targt.params.lr=1", "--set:1:1 there is no stage `targt` [did you mean `target`?]"),
        ("axes.sed=[1]", "--set:1:1 there is no axis `sed` [did you mean `seed`?]"),
        ("stages.target.params.lr=1", "--set:1:1 a path cannot begin with `stages` [did you mean `stage`?]"),
        ("seed=3", "--set:1:1 `seed` is an axis and has its values from there [set the whole axis: `axes.seed=[…]`]"),
        (
            "lr=3",
            "--set:1:1 no parameter asks for `${lr}` [a path has at least two parts: `stage.NAME.params.KEY=VALUE`]",
        ),
        ("stage.target.uses.x=3", "--set:1:1 `stage.target.uses` is a string `\"train.tms\"` and has no key `x`"),
        (
            "stage.target.params.sizes[3]=3",
            "--set:1:1 `stage.target.params.sizes` has length 1, there is no `stage.target.params.sizes[3]`",
        ),
        (
            "stage.target.params.lr=nan",
            "--set:1:24 the value of `stage.target.params.lr` is not TOML: expected a finite number, found `nan`",
        ),
        (
            "stage.target.params.stpes=3",
            "--set:1:1 parameters of stage `target`: unknown key `stpes` [did you mean `steps`?]",
        ),
        (
            "stage.target.params.steps=x",
            "--set:1:27 parameter `steps` of stage `target`: expected a whole number, found a string `\"x\"`",
        ),
    ];
    for (argument, expected) in wrong {
        let found = bad(text, &[argument]);
        let expected = expected.replace("1:24 `[`", "1:24 the value of `stage.target.params.lr` is not TOML: `[`");
        assert_eq!(found, [expected], "{argument}");
    }
}

#[test]
fn a_base_lies_under_the_file_and_keeps_the_order_of_its_stages() {
    let base = "[pipeline]\nname = \"base\"\n[stage.first]\nuses = \"echo\"\nparams = { steps = 1, sizes = [1, 2] }\n[stage.second]\nuses = \"echo\"\n";
    let file = "base = \"../lib/base.toml\"\n[stage.third]\nuses = \"echo\"\n[stage.first.params]\nsizes = [3]\n";
    let files = Memory([("x/p.toml", file), ("x/../lib/base.toml", base), ("lib/base.toml", base)].into());
    let options = LoadOptions { files: &files, ..LoadOptions::default() };
    let pipeline = load(Path::new("x/p.toml"), &options, &registry()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(pipeline.name, "base");
    assert_eq!(ids(&pipeline), ["first", "second", "third"]);
    assert_eq!(param(&pipeline, "first", "steps"), "1");
    assert_eq!(param(&pipeline, "first", "sizes"), "[3]");
}

#[test]
fn bases_that_form_a_cycle_or_are_missing_are_refused() {
    let cycle = [("p.toml", "base = \"a.toml\"\n"), ("a.toml", "\nbase = \"./p.toml\"\n")];
    let report = load_with(&cycle, None, &[]).err().expect("a cycle");
    assert_eq!(report.to_string(), "p.toml:1:8: pipeline files form a cycle of bases: `p.toml` → `a.toml` → `p.toml`");
    assert_eq!(report.diagnostics[0].labels.len(), 2);
    assert_eq!(
        lines(load_with(&[("p.toml", "base = \"b.toml\"")], None, &[])),
        [
            "p.toml:1:8 cannot read pipeline `b.toml`: no such file [`base` is relative to the folder of the file it stands in]"
        ]
    );
    assert_eq!(lines(load_with(&[], None, &[])), ["- cannot read pipeline `p.toml`: no such file"]);
}

#[test]
fn an_unknown_profile_is_named() {
    assert_eq!(
        lines(load_with(&[("p.toml", TMS)], Some("smok"), &[])),
        ["- there is no profile `smok` [did you mean `smoke`?]"]
    );
    assert_eq!(
        lines(load_with(&[("p.toml", "[stage.a]\nuses = \"echo\"")], Some("smoke"), &[])),
        ["- there is no profile `smoke` [the file has no profiles; a profile is a table `[profile.NAME.set]`]"]
    );
    let unquoted = "[stage.a]\nuses = \"echo\"\n[profile.x.set]\nstage.a.params.steps = 1\n";
    assert_eq!(
        lines(load_with(&[("p.toml", unquoted)], Some("x"), &[])),
        [
            "p.toml:4:1 expected a path in quotes in `set` of profile `x`, found the key `stage` [write the whole path in quotes: `\"stage.NAME.params.KEY\" = VALUE`]"
        ]
    );
}
