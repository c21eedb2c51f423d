//! Ranges, matrices that leave out points, and sweeps.

use super::*;

fn swept(text: &'static str, sweep: &str) -> Result<Pipeline, Report> {
    let files = Memory([("p.toml", text)].into());
    let options = LoadOptions { sweep: Some(sweep.to_owned()), files: &files, ..LoadOptions::default() };
    load(Path::new("p.toml"), &options, &registry())
}

fn good_swept(text: &'static str, sweep: &str) -> Pipeline {
    swept(text, sweep).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn a_range_holds_its_first_number_and_not_its_end() {
    let seeds = |axis: &str| {
        let text =
            "[axes]\nseed = [0]\n[stage.a]\nuses = \"echo\"\nmatrix = [\"seed\"]\nparams = { seed = \"${seed}\" }\n";
        let pipeline = good(text, &[&format!("axes.seed={axis}")]);
        pipeline
            .instances
            .iter()
            .map(|instance| instance.params.value().get("seed").unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(seeds("{ range = [0, 3] }"), ["0", "1", "2"]);
    assert_eq!(seeds("{ range = [5, 12, 3] }"), ["5", "8", "11"]);
}

#[test]
fn wrong_ranges_are_explained() {
    let text = r#"
[axes]
a = { range = [3, 3] }
b = { range = [0, 1.5] }
c = { range = [0, 8, 0] }
d = { rang = [0, 8] }
e = { range = [0, 1_000_000] }
f = 3
[stage.x]
uses = "echo"
"#;
    let form = "`{ range = [FIRST, END] }` or `{ range = [FIRST, END, STEP] }` with whole numbers";
    assert_eq!(
        bad(text, &[]),
        [
            "p.toml:3:5 axis `a` has no values".to_owned(),
            format!("p.toml:4:15 expected {form} as axis `b`, found `[0, 1.5]`"),
            "p.toml:5:15 the range of axis `c`: its step must be at least 1".to_owned(),
            format!("p.toml:6:5 missing key `range` in axis `d` [it is written {form}]"),
            "p.toml:6:7 unknown key `rang` in axis `d` [did you mean `range`?]".to_owned(),
            "p.toml:7:15 the range of axis `e`: it has more than 100000 values".to_owned(),
            "p.toml:8:5 expected a list or `{ range = [FIRST, END] }` as axis `f`, found the number `3`".to_owned(),
        ]
    );
}

const SPARSE: &str = r#"
[axes]
seed = [0, 1, 2]
lr = [1e-3, 1e-2]

[stage.target]
uses = "train.tms"
matrix = ["seed"]

[stage.decompose]
uses = "decompose.spd"
matrix = { axes = ["seed", "lr"], exclude = [{ seed = 0, lr = 1e-2 }, { seed = 2 }] }
inputs = { target = "target" }

[stage.per_seed]
uses = "plot"
matrix = { axes = ["seed"], include = [{ seed = 0 }, { seed = 1 }] }
inputs = { decompositions = { from = "decompose", over = ["lr"] } }

[stage.all]
uses = "plot"
inputs = { decompositions = { from = "decompose", over = ["seed", "lr"] } }
"#;

#[test]
fn a_matrix_can_leave_out_points_and_gathers_take_those_that_are_left() {
    let pipeline = good(SPARSE, &[]);
    let left = ["decompose[lr=0.001,seed=0]", "decompose[lr=0.001,seed=1]", "decompose[lr=0.01,seed=1]"];
    assert_eq!(ids(&pipeline)[3..6], left);
    assert_eq!(inputs(&pipeline, left[2], "target"), ["target[seed=1]"]);
    assert_eq!(inputs(&pipeline, "per_seed[seed=0]", "decompositions"), left[..1]);
    assert_eq!(inputs(&pipeline, "per_seed[seed=1]", "decompositions"), left[1..]);
    assert_eq!(inputs(&pipeline, "all", "decompositions"), left);
}

#[test]
fn an_input_that_a_matrix_leaves_out_is_a_mistake() {
    let found = bad(
        SPARSE,
        &[
            "stage.per_seed.matrix=[\"seed\"]",
            "stage.all.matrix={ axes = [\"seed\"], exclude = [{ lr = 1, sed = 0 }, { seed = 7 }, {}] }",
        ],
    );
    assert_eq!(
        found,
        [
            "p.toml:18:38 input `decompositions` of `per_seed[seed=2]`: the matrix of `decompose` leaves out that point \
             [leave the point out of `per_seed` too, or let `decompose` have it]",
            "--set:1:50 `exclude` of `matrix` of stage `all` names `lr`, which is no axis of this matrix \
             [axes of this matrix: `seed`]",
            "--set:1:58 `exclude` of `matrix` of stage `all` names `sed`, which is no axis of this matrix \
             [did you mean `seed`?]",
            "--set:1:78 axis `seed` has no value `7` [its values: `0`, `1`, `2`]",
            "--set:1:83 an item of `exclude` of `matrix` of stage `all` names no axis",
        ]
    );
    let nothing = "stage.decompose.matrix.exclude=[{ seed = 0 }, { seed = 1 }, { seed = 2 }]";
    let found = bad(SPARSE, &[nothing]);
    assert_eq!(found[0], "p.toml:10:8 `matrix` of stage `decompose` leaves no point [loosen `include` or `exclude`]");
}

const SWEPT: &str = r#"
[axes]
seed = [0, 1]

[params.common]
optim = { start = 1 }

[stage.target]
uses = "train.tms"

[stage.decompose]
uses = "decompose.spd"
matrix = ["seed"]
inputs = { target = "target" }
params = { seed = "${seed}", lr = 0.5, sizes = [1, 2] }

[stage.other]
uses = "decompose.spd"
with = ["common"]
inputs = { target = "target" }

[stage.figures]
uses = "plot"
inputs = { decompositions = { from = "decompose", over = ["seed"] } }

[stage.alone]
uses = "echo"

[sweep.price]
[sweep.price.stage.decompose.params]
lr = { values = [0.25, 1e-3] }
optim = { start = { values = [3, 4] } }

[sweep.shared.params.common.optim]
start = { values = [5, 6] }

[sweep.random]
samples = 200
seed = 7
[sweep.random.stage.decompose.params]
lr = { log_uniform = [1e-4, 1e-2] }
steps = { integers = [10, 13] }
title = { values = ["a", "b"] }
optim.start = { uniform = [-1, 1] }
"#;

#[test]
fn a_sweep_repeats_what_it_varies_and_what_follows_and_nothing_else() {
    let pipeline = good_swept(SWEPT, "price");
    let point = "price=lr-0.001+start-3";
    assert_eq!(ids(&pipeline).iter().filter(|id| !id.contains("price=")).count(), 3, "target, other, alone");
    assert_eq!(ids(&pipeline).iter().filter(|id| id.starts_with("decompose")).count(), 8);
    assert_eq!(ids(&pipeline).iter().filter(|id| id.starts_with("figures")).count(), 4);
    let id = format!("decompose[{point},seed=1]");
    assert_eq!(param(&pipeline, &id, "lr"), "0.001");
    assert_eq!(param(&pipeline, &id, "seed"), "1");
    assert_eq!(param(&pipeline, &id, "optim"), "{ end = 0.0, start = 3.0 }");
    assert_eq!(inputs(&pipeline, &id, "target"), ["target"]);
    let gathered = inputs(&pipeline, &format!("figures[{point}]"), "decompositions");
    assert_eq!(gathered, [format!("decompose[{point},seed=0]"), id]);
    let sweep = pipeline.sweep.expect("present");
    assert_eq!(sweep.keys, ["lr", "start"]);
    let names: Vec<_> = sweep.points.iter().map(|point| point.name.as_str()).collect();
    assert_eq!(names, ["lr-0.25+start-3", "lr-0.25+start-4", "lr-0.001+start-3", "lr-0.001+start-4"]);
    assert!(good(SWEPT, &[]).sweep.is_none(), "a sweep that is not asked for changes nothing");
    assert_eq!(ids(&good(SWEPT, &[])).len(), 6);
}

#[test]
fn a_sweep_over_a_shared_table_reaches_the_stages_that_take_it() {
    let pipeline = good_swept(SWEPT, "shared");
    assert_eq!(param(&pipeline, "other[shared=start-6]", "optim"), "{ end = 0.0, start = 6.0 }");
    assert_eq!(ids(&pipeline).len(), 7);
}

#[test]
fn random_points_stay_in_their_bounds_and_do_not_depend_on_how_many_there_are() {
    let pipeline = good_swept(SWEPT, "random");
    let sweep = pipeline.sweep.as_ref().expect("present");
    assert_eq!((sweep.points.len(), sweep.points[3].name.as_str()), (200, "3"));
    assert_eq!(sweep.keys, ["lr", "steps", "title", "start"]);
    let column = |key: usize| {
        let values = sweep.points.iter().map(move |point| point.values[key].to_string());
        values.map(|text| text.parse::<f64>().expect("a number")).collect::<Vec<_>>()
    };
    let (lr, steps, start) = (column(0), column(1), column(3));
    assert!(lr.iter().all(|lr| (1e-4..1e-2).contains(lr)) && start.iter().all(|start| (-1.0..1.0).contains(start)));
    // Half of the draws lie below the middle of the logarithms: 100, standard deviation 7.
    assert!(lr.iter().filter(|lr| **lr < 1e-3).count().abs_diff(100) < 28);
    for whole in [10.0, 11.0, 12.0] {
        assert!(steps.iter().filter(|steps| **steps == whole).count().abs_diff(67) < 27);
    }
    let is_a = |point: &&crate::pipeline::SweepPoint| point.values[2].as_str() == Some("a");
    assert!(sweep.points.iter().filter(is_a).count().abs_diff(100) < 28);
    let more: &'static str = Box::leak(SWEPT.replace("samples = 200", "samples = 300").into_boxed_str());
    let more = good_swept(more, "random").sweep.expect("present");
    assert!(sweep.points.iter().zip(&more.points).all(|(few, many)| few.values == many.values));
}

#[test]
fn the_items_of_a_list_are_found_by_their_kind_or_added() {
    let text = r#"
[stage.a]
uses = "listing"
params = { losses = ["plain", { kind = "price", coeff = 0.5 }] }
[sweep.s.stage.a.params]
losses = [{ kind = "price", coeff = { values = [1.0] } }, { kind = "new", coeff = { values = [2.0] } }]
"#;
    let files = Memory([("p.toml", text)].into());
    let options = LoadOptions { sweep: Some("s".to_owned()), files: &files, ..LoadOptions::default() };
    let registry = Registry::new().with::<Listing>();
    let pipeline = load(Path::new("p.toml"), &options, &registry).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(
        pipeline.instances[0].params.value().get("losses").expect("present").to_string(),
        "[\"plain\", { coeff = 1.0, kind = \"price\" }, { coeff = 2.0, kind = \"new\" }]"
    );
    assert_eq!(pipeline.instances[0].id.to_string(), "a[s=price.coeff-1.0+new.coeff-2.0]");
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListingParams {
    losses: Vec<Item>,
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Item {
    Plain,
    Price { coeff: f64 },
    New { coeff: f64 },
}

struct Listing;

impl Kind for Listing {
    type Params = ListingParams;
    const INFO: KindInfo = KindInfo { name: "listing", version: 1, summary: "For tests.", inputs: &[] };

    fn run(_: &ListingParams, _: &StageContext<'_>) -> Result<Summary, StageError> {
        Ok(Summary::default())
    }
}

#[test]
fn wrong_sweeps_are_explained_whether_asked_for_or_not() {
    let text = r#"
[stage.a]
uses = "echo"
params = { steps = 1 }
[sweep.one]
stpes = 3
[sweep.one.stage.a.params]
steps = [1, 2]
lr = 3
title = { values = [], uniform = [0, 1] }
seed = { integers = [0, 1.5] }
sizes = { values = 3 }
[sweep.two.stage.a]
parms = { steps = { values = [1] } }
[sweep.three]
samples = 0
[sweep.four.stage.a.params.optim]
start = { log_uniform = [0, 1] }
end = { uniform = [2, 1] }
[sweep.five.stage.a.params.optim]
start = { uniform = [0, 1] }
"#;
    assert_eq!(
        bad(text, &[]),
        [
            "p.toml:6:1 unknown key `stpes` in sweep `one` [known keys: `samples`, `seed`, `stage`, `params`]",
            "p.toml:8:9 `steps` of a sweep is a list, which does not say how to choose from it \
             [to try each of its items write `{ values = [1, 2] }`]",
            "p.toml:9:6 expected what to choose from, such as `{ values = [1, 2] }`, as `lr` of a sweep, found the number `3`",
            "p.toml:10:9 `title` of a sweep is chosen in one way, found `uniform` and `values`",
            "p.toml:11:21 expected two whole numbers `[LOW, HIGH]` as `integers` of `seed` of a sweep, found `[0, 1.5]`",
            "p.toml:12:20 expected a list as `values` of `sizes` of a sweep, found the number `3`",
            "p.toml:14:1 unknown key `parms` in stage `a` of sweep `two` [did you mean `params`?]",
            "p.toml:16:11 expected a whole number of at least 1 as `samples` of sweep `three`, found the number `0`",
            "p.toml:18:25 `log_uniform` of `optim.start` of a sweep must be above 0, found `[0, 1]`",
            "p.toml:19:19 the first number of `uniform` of `optim.end` of a sweep must be below the second, found `[2, 1]`",
            "p.toml:21:9 sweep `five` is a grid, so `optim.start` needs a list of values [or draw points at random: `samples = 20`]",
        ]
    );
}

#[test]
fn sweeps_that_do_not_fit_their_pipeline_are_explained() {
    let text = r#"
[axes]
taken = [0]
[stage.a]
uses = "echo"
params = { sizes = [1] }
[sweep.away.stage.b.params]
steps = { values = [1] }
[sweep.taken.stage.a.params]
steps = { values = [1] }
[sweep.deep.stage.a.params.sizes]
x = { values = [1] }
[sweep.wrong.stage.a.params]
steps = { values = [1, "many"] }
[sweep.shared.params.optim]
lr = { values = [1] }
"#;
    let one = |sweep: &str| lines(swept(text, sweep)).join("\n");
    assert_eq!(one("away"), "p.toml:8:9 sweep `away`: there is no stage `b` [known names: `a`]");
    assert_eq!(
        one("taken"),
        "p.toml:9:8 sweep `taken` is called like an axis, and its points become an axis of that name [give it another name]"
    );
    assert_eq!(one("deep"), "p.toml:12:5 `sizes.x` of sweep `deep`: the pipeline has a list there, without a key `x`");
    assert_eq!(
        one("wrong"),
        "p.toml:14:24 parameter `steps` of stage `a`: expected a whole number, found a string `\"many\"`"
    );
    assert_eq!(
        one("shared"),
        "p.toml:16:6 sweep `shared`: there is no shared parameter table that a stage takes `optim`"
    );
    assert_eq!(one("pric"), "- there is no sweep `pric` [known sweeps: `away`, `deep`, `shared`, `taken`, `wrong`]");
}
