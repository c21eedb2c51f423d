//! Whole pipelines in, instances or reports out, with kinds made for the purpose.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use proptest::prelude::*;

use super::*;
use crate::kind::{InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

/// Files that exist only in a test.
struct Memory(BTreeMap<&'static str, &'static str>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<String> {
        let name = path.to_str().unwrap_or_default();
        self.0.get(name).map(|text| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    steps: u32,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    lr: f64,
    #[serde(default)]
    title: String,
    #[serde(default)]
    sizes: Vec<u32>,
    #[serde(default)]
    optim: Option<Optim>,
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Optim {
    start: f64,
    #[serde(default)]
    end: f64,
}

macro_rules! kind {
    ($type:ident $name:literal [$($slot:expr),*]) => {
        struct $type;

        impl Kind for $type {
            type Params = Params;
            const INFO: KindInfo = KindInfo { name: $name, version: 1, summary: "For tests.", inputs: &[$($slot),*] };

            fn validate(params: &Params) -> Vec<ParamIssue> {
                let too_small = params.lr < 0.0;
                too_small.then(|| ParamIssue::new("lr", format!("must not be negative, found {}", params.lr))).into_iter().collect()
            }

            fn run(_: &Params, _: &StageContext<'_>) -> Result<Summary, StageError> {
                Ok(Summary::default())
            }
        }
    };
}

const fn slot(name: &'static str, accepts: &'static [&'static str], many: bool, required: bool) -> InputSlot {
    InputSlot { name, accepts, many, required, summary: "" }
}

kind!(Train "train.tms" []);
kind!(Decompose "decompose.spd" [slot("target", &["train.*"], false, true)]);
kind!(Plot "plot" [slot("decompositions", &["decompose.*"], true, true), slot("comparison", &["plot"], false, false)]);
kind!(Echo "echo" [slot("from", &["*"], false, false)]);
kind!(Any "any" [slot("*", &["*"], true, false)]);

fn registry() -> Registry {
    Registry::new().with::<Train>().with::<Decompose>().with::<Plot>().with::<Echo>().with::<Any>()
}

fn load_with(files: &[(&'static str, &'static str)], profile: Option<&str>, set: &[&str]) -> Result<Pipeline, Report> {
    let files = Memory(files.iter().copied().collect());
    let options = LoadOptions {
        profile: profile.map(str::to_owned),
        set: set.iter().map(|text| (*text).to_owned()).collect(),
        files: &files,
    };
    load(Path::new("p.toml"), &options, &registry())
}

fn good(text: &'static str, set: &[&str]) -> Pipeline {
    load_with(&[("p.toml", text)], None, set).unwrap_or_else(|report| panic!("{report}"))
}

/// Returns each mistake as "line: message [hints]".
fn bad(text: &'static str, set: &[&str]) -> Vec<String> {
    lines(load_with(&[("p.toml", text)], None, set))
}

fn lines(result: Result<Pipeline, Report>) -> Vec<String> {
    let Err(report) = result else { panic!("no mistake was found") };
    report
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let place = |origin| {
                let (line, column) = report.line_and_column(origin);
                format!("{}:{line}:{column}", report.sources[origin.source].name)
            };
            let place = diagnostic.labels.first().map_or("-".to_owned(), |label| place(&label.origin));
            let hints =
                if diagnostic.hints.is_empty() { String::new() } else { format!(" [{}]", diagnostic.hints.join("; ")) };
            format!("{place} {}{hints}", diagnostic.message)
        })
        .collect()
}

fn ids(pipeline: &Pipeline) -> Vec<String> {
    pipeline.instances.iter().map(|instance| instance.id.to_string()).collect()
}

/// Returns the names of the artifacts an instance takes in a slot.
fn inputs(pipeline: &Pipeline, id: &str, slot: &str) -> Vec<String> {
    let instance = pipeline.instances.iter().find(|instance| instance.id.to_string() == id).expect("present");
    instance.inputs[slot].iter().map(|index| pipeline.instances[*index].id.to_string()).collect()
}

fn param(pipeline: &Pipeline, id: &str, key: &str) -> String {
    let instance = pipeline.instances.iter().find(|instance| instance.id.to_string() == id).expect("present");
    instance.params.get(key).expect("present").to_string()
}

const TMS: &str = r#"
[pipeline]
name = "tms"
description = "A toy"

[axes]
seed = [0, 1]
lr = [1e-3, 1e-2]

[params.optim]
steps = 7
optim = { start = 1, end = 2 }

[stage.figures]
uses = "plot"
inputs = { decompositions = { from = "decompose", over = ["seed", "lr"] } }

[stage.per_lr]
uses = "plot"
matrix = ["lr"]
inputs = { decompositions = { from = "decompose", over = ["seed"] } }

[stage.decompose]
uses = "decompose.spd"
matrix = ["seed", "lr"]
with = ["optim"]
inputs = { target = "target" }
params = { seed = "${seed}", lr = "${lr}", title = "run ${seed} at ${lr} for $${x}", optim = { start = 5 } }

[stage.target]
uses = "train.tms"
params = { steps = 10_000 }

[stage.one]
uses = "plot"
inputs = { decompositions = ["decompose[seed=1,lr=1e-2]", "decompose[lr=0.001, seed=0]"] }

[profile.smoke.set]
"axes.seed" = [1, 0]
"stage.target.params.steps" = 5
"#;

#[test]
fn instances_come_producers_first_then_in_the_order_of_the_file() {
    let pipeline = good(TMS, &[]);
    assert_eq!(
        ids(&pipeline),
        [
            "target",
            "decompose[lr=0.001,seed=0]",
            "decompose[lr=0.01,seed=0]",
            "decompose[lr=0.001,seed=1]",
            "decompose[lr=0.01,seed=1]",
            "figures",
            "per_lr[lr=0.001]",
            "per_lr[lr=0.01]",
            "one",
        ]
    );
    assert_eq!((pipeline.name.as_str(), pipeline.description.as_str()), ("tms", "A toy"));
}

#[test]
fn inputs_join_on_shared_axes_select_and_gather() {
    let pipeline = good(TMS, &[]);
    assert_eq!(inputs(&pipeline, "decompose[lr=0.01,seed=1]", "target"), ["target"]);
    assert_eq!(inputs(&pipeline, "figures", "decompositions"), &ids(&pipeline)[1..5]);
    assert_eq!(
        inputs(&pipeline, "per_lr[lr=0.01]", "decompositions"),
        ["decompose[lr=0.01,seed=0]", "decompose[lr=0.01,seed=1]"]
    );
    assert_eq!(inputs(&pipeline, "one", "decompositions"), ["decompose[lr=0.01,seed=1]", "decompose[lr=0.001,seed=0]"]);
}

#[test]
fn placeholders_take_the_type_of_their_value_and_with_lies_under_params() {
    let pipeline = good(TMS, &[]);
    let id = "decompose[lr=0.01,seed=1]";
    assert_eq!(param(&pipeline, id, "seed"), "1");
    assert_eq!(param(&pipeline, id, "lr"), "0.01");
    assert_eq!(param(&pipeline, id, "title"), "\"run 1 at 0.01 for ${x}\"");
    assert_eq!(param(&pipeline, id, "steps"), "7");
    assert_eq!(param(&pipeline, id, "optim"), "{ end = 2.0, start = 5.0 }");
}

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
resources = { threads = 0, time = "soon", cores = 3 }
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
        "p.toml:6:2 unknown key `sweep` at the top of the pipeline [known keys: `pipeline`, `axes`, `params`, `stage`, `profile`, `base`]",
        "p.toml:8:8 there is no stage kind `trian.tms` [did you mean `train.tms`?]",
        "p.toml:11:11 there is no axis `sed` [did you mean `seed`?]",
        "p.toml:12:9 there is no shared parameter table `optim` [add a table `[params.optim]`]",
        "p.toml:13:1 unknown key `input` in stage `decompose` [did you mean `inputs`?]",
        "p.toml:14:21 input `target` of stage `decompose` takes an artifact of kind `train.*`, but `figures` makes one of kind `plot`",
        "p.toml:14:32 `decompose.spd` has no input `taget` [did you mean `target`?]",
        "p.toml:16:25 resources `threads` of stage `decompose`: expected a whole number of at least 1, found `0`",
        "p.toml:16:35 resources `time` of stage `decompose`: expected a time like `\"90s\"`, `\"30m\"` or `\"1h30m\"`, found `\"soon\"`",
        "p.toml:16:43 resources of stage `decompose`: unknown key `cores` [known keys: `threads`, `gpus`, `time`]",
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
fn names_with_points_are_reached_with_quotes() {
    let text = "[stage.\"a.b\"]\nuses = \"echo\"\n[stage.c]\nuses = \"any\"\ninputs = { anything = \"a.b\" }\n";
    let pipeline = good(text, &["stage.\"a.b\".params.steps=3"]);
    assert_eq!(param(&pipeline, "a.b", "steps"), "3");
    assert_eq!(inputs(&pipeline, "c", "anything"), ["a.b"]);
}

#[test]
fn a_pipeline_without_stages_is_refused() {
    assert_eq!(bad("", &[]), ["- pipeline `p` has no stages [a stage is a table `[stage.NAME]`]"]);
}

#[test]
fn a_matrix_that_multiplies_beyond_bounds_is_refused_before_memory_runs_out() {
    let axis: String = (0..1_001).map(|value| format!("{value},")).collect();
    let text = format!("[axes]\na = [{axis}]\nb = [{axis}]\n[stage.x]\nuses = \"echo\"\nmatrix = [\"a\", \"b\"]\n");
    let found = bad(text.leak(), &[]);
    assert_eq!(found, ["p.toml:4:8 stage `x` brings the pipeline to more than 1000000 instances"]);
}

#[test]
fn a_chain_of_a_hundred_thousand_stages_loads() {
    let mut text = String::new();
    for stage in (0..100_000).rev() {
        text += &format!("[stage.s{stage}]\nuses = \"echo\"\n");
        if stage > 0 {
            text += &format!("inputs.from = \"s{}\"\n", stage - 1);
        }
    }
    let pipeline = good(text.leak(), &[]);
    assert_eq!(pipeline.instances.len(), 100_000);
    assert_eq!(pipeline.instances[99_999].id.stage, "s99999");
}

#[test]
fn stage_arguments_select_instances() {
    let pipeline = good(TMS, &[]);
    let select = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        pipeline.select(&arguments).map_err(|diagnostic| format!("{diagnostic} {:?}", diagnostic.hints))
    };
    assert_eq!(select(&[]).map(|found| found.len()), Ok(9));
    assert_eq!(select(&["decompose"]), Ok(vec![1, 2, 3, 4]));
    assert_eq!(select(&["decompose[seed=1]", "target"]), Ok(vec![0, 3, 4]));
    assert_eq!(select(&["decompose[seed=1,lr=1e-2]"]), Ok(vec![4]));
    assert_eq!(select(&["*[lr=0.01*"]), Ok(vec![2, 4, 7]));
    assert_eq!(select(&["decompse"]), Err("there is no stage `decompse` [\"did you mean `decompose`?\"]".to_owned()));
    assert_eq!(
        select(&["decompose[seed=2]"]),
        Err("stage `decompose` has no instance with `seed=2` [\"values of `seed`: `0`, `1`\"]".to_owned())
    );
    assert!(select(&["target[seed=0]"]).is_err() && select(&["x*"]).is_err() && select(&["a["]).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        let _ = load_with(&[("p.toml", text.leak())], None, &[]);
    }

    #[test]
    fn no_damage_to_a_pipeline_makes_the_reader_panic(
        position in 0..TMS.len(),
        removed in 0..12_usize,
        inserted in "[\\[\\]{}=\"'\\$.,a0#\n é\\\\]{0,4}",
        argument in "(stage|axes|seed|a)[\\[\\].\"a0-]{0,6}=?[\\[\\]{}=\"'a0.,é-]{0,6}",
    ) {
        let mut text = TMS.to_owned();
        text.replace_range(position..(position + removed).min(TMS.len()), &inserted);
        if let Err(report) = load_with(&[("p.toml", text.leak())], Some("smoke"), &[argument.as_str()]) {
            prop_assert!(!report.diagnostics.is_empty());
            for label in report.diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels) {
                let text = &report.sources[label.origin.source].text;
                prop_assert!(text.get(label.origin.span.clone()).is_some(), "{label:?}");
            }
        }
    }
}
