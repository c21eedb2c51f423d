//! What is said about pipelines that are wrong.

use super::*;

#[test]
fn all_mistakes_of_a_file_come_in_one_report() {
    let text = r#"
[pipline]
[axes]
seed = [0, 0, "a/b"]
empty = []
[sweep.x]
[stage.target]
uses = "trian.tms"
[stage.decompose]
uses = "decompose.spd"
matrix = ["sed"]
with = ["optim"]
input = { target = "target" }
inputs = { target = "figures", taget = "target" }
params = { steps = "x", lr = -1.0, stpes = 3 }
resources = { threads = 0, time = "soon", cores = 3, memory = "4" }
[stage.figures]
uses = "plot"
inputs = { decompositions = "nothing" }
params = { seed = "${seed}", title = "${x" }
[stage.-bad]
uses = 3
[stage.none]
[stage.params]
uses = "echo"
matrix = ["x y"]
params = { steps = "x", stpes = 3 }
"#;
    let found = bad(text, &[]);
    let expected = [
        "p.toml:2:2 unknown key `pipline` at the top of the pipeline [did you mean `pipeline`?]",
        "p.toml:4:12 axis `seed` holds `0` twice",
        "p.toml:4:15 axis `seed`: a value of an axis may hold letters, digits, `_`, `.`, `+` and `-`, found `/`",
        "p.toml:5:9 axis `empty` has no values",
        "p.toml:6:8 sweep `x` varies nothing [write what varies as the pipeline would, with `{ values = […] }` for the value]",
        "p.toml:8:8 there is no stage kind `trian.tms` [did you mean `train.tms`?]",
        "p.toml:11:11 there is no axis `sed` [did you mean `seed`?]",
        "p.toml:12:9 there is no shared parameter table `optim` [add a table `[params.optim]`]",
        "p.toml:13:1 unknown key `input` in stage `decompose` [did you mean `inputs`?]",
        "p.toml:14:21 input `target` of stage `decompose` takes an artifact of kind `train.*`, but `figures` makes one of kind `plot`",
        "p.toml:14:32 `decompose.spd` has no input `taget` [did you mean `target`?]",
        "p.toml:16:25 resources `threads` of stage `decompose`: expected a whole number of at least 1, found `0`",
        "p.toml:16:35 resources `time` of stage `decompose`: expected a time like `\"90s\"`, `\"30m\"` or `\"1h30m\"`, found `\"soon\"`",
        "p.toml:16:43 resources of stage `decompose`: unknown key `cores` [known keys: `threads`, `memory`, `gpus`, `time`]",
        "p.toml:16:63 resources `memory` of stage `decompose`: expected an amount of memory like `\"4GiB\"` or `\"500MB\"`, found `\"4\"`",
        "p.toml:19:29 there is no stage `nothing` [known stages: `-bad`, `decompose`, `figures`, `none`, `params`, `target`]",
        "p.toml:20:19 stage `figures` does not run over axis `seed`, so `${seed}` has no value [add it to the stage's matrix: `matrix = [\"seed\"]`]",
        "p.toml:20:38 `${` is not closed in a string `\"${x\"` [a literal `${` is written `$${`]",
        "p.toml:21:8 stage `-bad`: a name must begin with a letter, a digit or `_`, found `-`",
        "p.toml:22:8 expected a string as `uses` of stage `-bad`, found the number `3`",
        "p.toml:23:1 missing key `uses` in stage `none`: which kind of stage is it? [`spdflow kinds` lists the kinds]",
        "p.toml:26:11 there is no axis `x y` [known axes: `empty`, `seed`]",
        "p.toml:27:20 parameter `steps` of stage `params`: expected a whole number, found a string `\"x\"`",
        "p.toml:27:25 parameters of stage `params`: unknown key `stpes` [did you mean `steps`?]",
    ];
    assert_eq!(found, expected, "found:\n{}", found.join("\n"));
}

#[test]
fn slots_and_axes_that_do_not_fit_are_explained() {
    let text = r#"
[axes]
seed = [0, 1]
other = [0]
[stage.target]
uses = "train.tms"
[stage.seeds]
uses = "train.tms"
matrix = ["seed"]
[stage.decompose]
uses = "decompose.spd"
inputs = { target = "seeds" }
[stage.list]
uses = "decompose.spd"
inputs = { target = ["target"] }
[stage.figures]
uses = "plot"
inputs = { decompositions = "split" }
[stage.split]
uses = "decompose.spd"
matrix = ["seed"]
inputs = { target = "target[seed=0]" }
[stage.fixed]
uses = "decompose.spd"
inputs = { target = "seeds[seed=7]" }
[stage.over]
uses = "plot"
matrix = ["other"]
inputs = { decompositions = { from = "split", over = ["other"], at = 3 } }
[stage.both]
uses = "plot"
inputs = { decompositions = { from = "split[seed=0]", over = ["seed"] } }
[stage.lacks]
uses = "plot"
[stage.broken]
uses = "decompose.spd"
inputs = { target = "seeds[seed" }
[stage.typed]
uses = "decompose.spd"
inputs = { target = 3 }
"#;
    let found = bad(text, &[]);
    let reference = "a reference is written `\"STAGE\"` or `\"STAGE[AXIS=VALUE]\"`";
    let expected = [
        "p.toml:12:21 input `target` of stage `decompose` must choose among the 2 instances of `seeds` on axis `seed` [choose one: `\"seeds[seed=0]\"`; or run `decompose` once for each: add `\"seed\"` to its `matrix`]".to_owned(),
        "p.toml:15:21 input `target` of `decompose.spd` takes exactly one artifact, found a list [name one stage: `\"STAGE\"` or `\"STAGE[AXIS=VALUE]\"`]".to_owned(),
        "p.toml:18:29 input `decompositions` of stage `figures` must choose among the 2 instances of `split` on axis `seed` [choose one: `\"split[seed=0]\"`; or take all: `{ from = \"split\", over = [\"seed\"] }`; or run `figures` once for each: add `\"seed\"` to its `matrix`]".to_owned(),
        "p.toml:22:21 stage `target` does not run over axis `seed` [`target` has no matrix]".to_owned(),
        "p.toml:25:21 axis `seed` has no value `7` [its values: `0`, `1`]".to_owned(),
        "p.toml:29:38 input `decompositions` of stage `over` must choose among the 2 instances of `split` on axis `seed` [choose one: `\"split[seed=0]\"`; or take all: `{ from = \"split\", over = [\"seed\"] }`; or run `over` once for each: add `\"seed\"` to its `matrix`]".to_owned(),
        "p.toml:29:55 stage `split` does not run over axis `other` [axes of `split`: `seed`]".to_owned(),
        "p.toml:29:65 unknown key `at` in input `decompositions` of stage `over` [known keys: `from`, `over`]".to_owned(),
        "p.toml:32:63 axis `seed` is both fixed and gathered over".to_owned(),
        "p.toml:33:8 stage `lacks` lacks the input `decompositions` that `plot` needs [add `inputs = { decompositions = \"STAGE\" }` with a stage of kind `decompose.*`]".to_owned(),
        format!("p.toml:37:21 input `target` of stage `broken`: `seeds[seed` has no closing `]` [{reference}]"),
        "p.toml:40:21 expected a stage's name or a table with the key `from` as input `target` of stage `typed`, found the number `3`".to_owned(),
    ];
    assert_eq!(found, expected, "found:\n{}", found.join("\n"));
}

#[test]
fn a_cycle_shows_its_path_with_the_line_of_every_hop() {
    let text = "[stage.a]\nuses = \"echo\"\ninputs.from = \"c\"\n[stage.b]\nuses = \"echo\"\ninputs.from = \"a\"\n[stage.c]\nuses = \"echo\"\ninputs.from = \"b\"\n";
    let report = load_with(&[("p.toml", text)], None, &[]).err().expect("a cycle");
    assert_eq!(report.diagnostics.len(), 1);
    let cycle = &report.diagnostics[0];
    assert_eq!(cycle.message, "stages wait for one another in a cycle: `a` → `c` → `b` → `a`");
    let hops: Vec<_> =
        cycle.labels.iter().map(|label| (report.line_and_column(&label.origin).0, label.text.as_str())).collect();
    assert_eq!(hops, [(3, "`a` takes `c`"), (9, "`c` takes `b`"), (6, "`b` takes `a`")]);
}

#[test]
fn the_same_mistake_in_several_instances_is_reported_once() {
    let text = "[axes]\nseed = [0, 1]\n[stage.a]\nuses = \"echo\"\nmatrix = [\"seed\"]\nparams = { seed = \"${seed}\", lr = -2.0 }\n";
    assert_eq!(bad(text, &[]), ["p.toml:6:35 parameter `lr` of stage `a`: must not be negative, found -2"]);
}

#[test]
fn a_wrong_axis_value_names_what_the_placeholder_stood_for() {
    let text =
        "[axes]\nseed = [\"x\"]\n[stage.a]\nuses = \"echo\"\nmatrix = [\"seed\"]\nparams = { seed = \"${seed}\" }\n";
    assert_eq!(
        bad(text, &[]),
        [
            "p.toml:6:19 parameter `seed` of stage `a`: expected a whole number, found a string `\"x\"` [`${seed}` stands for `\"x\"` here]"
        ]
    );
}

#[test]
fn a_pipeline_without_stages_is_refused() {
    assert_eq!(bad("", &[]), ["- pipeline `p` has no stages [a stage is a table `[stage.NAME]`]"]);
}

#[test]
fn the_expected_time_of_a_pipeline_is_a_time() {
    let text = "[pipeline]\nexpected_time = \"1h30m\"\n[stage.x]\nuses = \"echo\"\n";
    assert_eq!(good(text, &[]).expected_time, Some(std::time::Duration::from_secs(5_400)));
    let found = bad("[pipeline]\nexpected_time = \"long\"\n[stage.x]\nuses = \"echo\"\n", &[]);
    let expected = "p.toml:2:17 the pipeline's expected_time: expected a time like `\"90s\"`, `\"30m\"` or `\"1h30m\"`, \
                    found `\"long\"`";
    assert_eq!(found, [expected]);
}
