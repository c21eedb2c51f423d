//! Mistakes in pipelines, with the kinds of stages that exist: the whole report, and the exit code.
//!
//! What the many mistakes of each sort look like is tested where they are found, in `engine/src/spec/tests`.

use crate::support::Bench;

/// Runs `check` on a file with this text.
#[track_caller]
fn assert_refused(text: &str, more: &[&str], expected: &str) {
    let bench = Bench::new().file("p.toml", text);
    bench.run(&[&["check", "p.toml"], more].concat()).assert(2, "", expected);
    // A run says the same and leaves nothing behind.
    bench.run(&[&["run", "p.toml"], more].concat()).assert(2, "", expected);
    let left: Vec<_> = std::fs::read_dir(bench.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["p.toml"]);
}

/// A target for other stages to take.
const TARGET: &str = "[stage.target]\nuses = \"train.tms\"\nparams = { n_features = 5, n_hidden = 2 }\n";

#[test]
fn an_unknown_kind_and_an_unknown_key_are_two_mistakes_of_one_report() {
    let text = "[stage.target]\nuses = \"train.tsm\"\nparam = { n_features = 5 }\n";
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
3 | param = { n_features = 5 }
  | ^^^^^
  |
  = hint: did you mean `params`?

found 2 mistakes
";
    assert_refused(text, &[], expected);
}

#[test]
fn unknown_parameters_and_choices() {
    let text = "[stage.target]
uses = \"train.tms\"
params = { n_features = 5, n_hidden = 2, stpes = 10 }
[stage.decompose]
uses = \"decompose.spd\"
inputs = { target = \"target\" }
[stage.decompose.params]
steps = 10
batch_size = 8
lr = { start = 1e-3, shedule = \"cosine\" }
sites = [{ pattern = \"linear1\", C = 4 }]
sampling = \"binomal\"
losses = [{ kind = \"stochastic_recn\", coeff = 1.0 }]
";
    let expected = "error: parameters of stage `target`: unknown key `stpes`
 --> p.toml:3:42
  |
3 | params = { n_features = 5, n_hidden = 2, stpes = 10 }
  |                                          ^^^^^
  |
  = hint: did you mean `steps`?

error: parameter `lr` of stage `decompose`: unknown key `shedule`
  --> p.toml:10:22
   |
10 | lr = { start = 1e-3, shedule = \"cosine\" }
   |                      ^^^^^^^
   |
   = hint: did you mean `schedule`?

error: parameter `sampling` of stage `decompose`: unknown value `binomal`
  --> p.toml:12:12
   |
12 | sampling = \"binomal\"
   |            ^^^^^^^^^
   |
   = hint: did you mean `binomial`?

error: parameter `losses[0].kind` of stage `decompose`: unknown kind `stochastic_recn`
  --> p.toml:13:20
   |
13 | losses = [{ kind = \"stochastic_recn\", coeff = 1.0 }]
   |                    ^^^^^^^^^^^^^^^^^
   |
   = hint: did you mean `stochastic_recon`?

found 4 mistakes
";
    assert_refused(text, &[], expected);
}

#[test]
fn an_unknown_stage_as_input() {
    let text = format!(
        "{TARGET}[stage.clusters]\nuses = \"cluster.kmeans\"\ninputs = {{ decomposition = \"targt\" }}\nparams = {{ n_clusters = 5 }}\n"
    );
    let expected = "error: there is no stage `targt`
 --> p.toml:6:28
  |
6 | inputs = { decomposition = \"targt\" }
  |                            ^^^^^^^
  |
  = hint: did you mean `target`?
";
    assert_refused(&text, &[], expected);
}

#[test]
fn an_unknown_stage_on_the_command_line() {
    let bench = Bench::new().file("p.toml", TARGET);
    for command in ["run", "plan", "status", "show", "metrics", "log"] {
        let expected = "error: there is no stage `targt`\n  hint: did you mean `target`?\n";
        bench.run(&[command, "p.toml", "targt"]).assert(2, "", expected);
    }
    let expected = "error: stage `target` does not run over axis `seed`\n";
    bench.run(&["run", "p.toml", "target[seed=0]"]).assert(2, "", expected);
}

#[test]
fn wrong_types() {
    let text = "[stage.target]
uses = \"train.tms\"
[stage.target.params]
n_features = -1
n_hidden = 2.5
steps = \"many\"
tied_weights = 1
value_range = [0, 1, 2]
lr = 1e-3
";
    let expected = "error: parameter `n_features` of stage `target`: expected a whole number of at least 0, found `-1`
 --> p.toml:4:14
  |
4 | n_features = -1
  |              ^^

error: parameter `n_hidden` of stage `target`: expected a whole number, found `2.5`
 --> p.toml:5:12
  |
5 | n_hidden = 2.5
  |            ^^^

error: parameter `steps` of stage `target`: expected a whole number, found a string `\"many\"`
 --> p.toml:6:9
  |
6 | steps = \"many\"
  |         ^^^^^^

error: parameter `tied_weights` of stage `target`: expected `true` or `false`, found the number `1`
 --> p.toml:7:16
  |
7 | tied_weights = 1
  |                ^

error: parameter `value_range` of stage `target`: expected a list of 2 values, found 3
 --> p.toml:8:15
  |
8 | value_range = [0, 1, 2]
  |               ^^^^^^^^^

error: parameter `lr` of stage `target`: expected a table, found the number `0.001`
 --> p.toml:9:6
  |
9 | lr = 1e-3
  |      ^^^^

found 6 mistakes
";
    assert_refused(text, &[], expected);
}

#[test]
fn numbers_out_of_range() {
    let text = "[stage.target]
uses = \"train.tms\"
[stage.target.params]
n_features = 0
n_hidden = 2
feature_probability = 1.5
lr = { start = -1.0 }
[stage.decompose]
uses = \"decompose.spd\"
inputs = { target = \"target\" }
[stage.decompose.params]
steps = 10
batch_size = 0
lr = { start = 1e-3, schedule = \"linear\", final_fraction = -0.5 }
sites = [{ pattern = \"linear1\", C = 0 }]
losses = [{ kind = \"faithfulness\", coeff = 1 }, { kind = \"faithfulness\", coeff = 2 }]
evaluation = { alive_threshold = 2.0 }
";
    let expected = "error: parameter `n_features` of stage `target`: must be at least 1, found 0
 --> p.toml:4:14
  |
4 | n_features = 0
  |              ^

error: parameter `feature_probability` of stage `target`: must be in [0, 1], found 1.5
 --> p.toml:6:23
  |
6 | feature_probability = 1.5
  |                       ^^^

error: parameter `lr.start` of stage `target`: must be a positive number, found -1
 --> p.toml:7:16
  |
7 | lr = { start = -1.0 }
  |                ^^^^

error: parameter `batch_size` of stage `decompose`: must be at least 1, found 0
  --> p.toml:13:14
   |
13 | batch_size = 0
   |              ^

error: parameter `lr.final_fraction` of stage `decompose`: must not be negative, found -0.5
  --> p.toml:14:60
   |
14 | lr = { start = 1e-3, schedule = \"linear\", final_fraction = -0.5 }
   |                                                            ^^^^

error: parameter `sites[0].C` of stage `decompose`: must be at least 1, found 0
  --> p.toml:15:37
   |
15 | sites = [{ pattern = \"linear1\", C = 0 }]
   |                                     ^

error: parameter `losses[1].kind` of stage `decompose`: names a loss that is in the list already
  --> p.toml:16:58
   |
16 | losses = [{ kind = \"faithfulness\", coeff = 1 }, { kind = \"faithfulness\", coeff = 2 }]
   |                                                          ^^^^^^^^^^^^^^

error: parameter `evaluation.alive_threshold` of stage `decompose`: must be in [0, 1], found 2
  --> p.toml:17:34
   |
17 | evaluation = { alive_threshold = 2.0 }
   |                                  ^^^

found 8 mistakes
";
    assert_refused(text, &[], expected);
}

#[test]
fn numbers_that_are_none() {
    let text = "[stage.target]
uses = \"train.tms\"
params = { n_features = 5, n_hidden = 2, weight_decay = nan, feature_probability = inf }
";
    let expected = "error: expected a finite number, found `nan`
 --> p.toml:3:57
  |
3 | params = { n_features = 5, n_hidden = 2, weight_decay = nan, feature_probability = inf }
  |                                                         ^^^

error: expected a finite number, found `inf`
 --> p.toml:3:84
  |
3 | params = { n_features = 5, n_hidden = 2, weight_decay = nan, feature_probability = inf }
  |                                                                                    ^^^

found 2 mistakes
";
    assert_refused(text, &[], expected);
}

#[test]
fn missing_parameters_and_inputs() {
    let text = "[stage.target]\nuses = \"train.tms\"\n[stage.clusters]\nuses = \"cluster.kmeans\"\n";
    let expected = "error: parameters of stage `target`: missing key `n_features`
 --> p.toml:1:1
  |
1 | [stage.target]
  | ^^^^^^^^^^^^^^

error: parameters of stage `target`: missing key `n_hidden`
 --> p.toml:1:1
  |
1 | [stage.target]
  | ^^^^^^^^^^^^^^

error: parameters of stage `clusters`: missing key `n_clusters`
 --> p.toml:3:1
  |
3 | [stage.clusters]
  | ^^^^^^^^^^^^^^^^

error: stage `clusters` lacks the input `decomposition` that `cluster.kmeans` needs
 --> p.toml:3:8
  |
3 | [stage.clusters]
  |        ^^^^^^^^
  |
  = hint: add `inputs = { decomposition = \"STAGE\" }` with a stage of kind `decompose.*`

found 4 mistakes
";
    assert_refused(text, &[], expected);
}

#[test]
fn inputs_of_the_wrong_kind() {
    let text = format!(
        "{TARGET}[stage.clusters]
uses = \"cluster.kmeans\"
inputs = {{ decomposition = \"target\" }}
params = {{ n_clusters = 5 }}
[stage.figures]
uses = \"plot\"
inputs = {{ decompositions = [\"target\", \"clusters\"] }}
"
    );
    let expected = "error: input `decomposition` of stage `clusters` takes an artifact of kind `decompose.*`, but `target` makes one of kind `train.tms`
 --> p.toml:6:28
  |
6 | inputs = { decomposition = \"target\" }
  |                            ^^^^^^^^

error: input `decompositions` of stage `figures` takes an artifact of kind `decompose.*`, but `target` makes one of kind `train.tms`
  --> p.toml:10:30
   |
10 | inputs = { decompositions = [\"target\", \"clusters\"] }
   |                              ^^^^^^^^

error: input `decompositions` of stage `figures` takes an artifact of kind `decompose.*`, but `clusters` makes one of kind `cluster.kmeans`
  --> p.toml:10:40
   |
10 | inputs = { decompositions = [\"target\", \"clusters\"] }
   |                                        ^^^^^^^^^^

found 3 mistakes
";
    assert_refused(&text, &[], expected);
}

#[test]
fn stages_in_a_cycle() {
    let text = "[stage.a]
uses = \"cluster.kmeans\"
inputs = { decomposition = \"b\" }
params = { n_clusters = 5 }
[stage.b]
uses = \"cluster.kmeans\"
inputs = { decomposition = \"a\" }
params = { n_clusters = 5 }
";
    let expected = "error: input `decomposition` of stage `a` takes an artifact of kind `decompose.*`, but `b` makes one of kind `cluster.kmeans`
 --> p.toml:3:28
  |
3 | inputs = { decomposition = \"b\" }
  |                            ^^^

error: stages wait for one another in a cycle: `a` → `b` → `a`
 --> p.toml:3:28
  |
3 | inputs = { decomposition = \"b\" }
  |                            ^^^ `a` takes `b`
...
7 | inputs = { decomposition = \"a\" }
  |                            --- `b` takes `a`
  |
  = hint: remove one of these inputs

error: input `decomposition` of stage `b` takes an artifact of kind `decompose.*`, but `a` makes one of kind `cluster.kmeans`
 --> p.toml:7:28
  |
7 | inputs = { decomposition = \"a\" }
  |                            ^^^

found 3 mistakes
";
    assert_refused(text, &[], expected);
}

#[test]
fn a_wrong_set_argument_is_shown_with_its_place() {
    let expected = "error: parameters of stage `target`: unknown key `stpes`
 --> --set:1:1
  |
1 | stage.target.params.stpes=500
  | ^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: did you mean `steps`?
";
    assert_refused(TARGET, &["--set", "stage.target.params.stpes=500"], expected);
}

/// A decomposition up to what is said of its inputs and its evaluation.
const DECOMPOSE: &str = "[stage.decompose]
uses = \"decompose.spd\"
inputs = { target = \"target\" }
[stage.decompose.params]
steps = 10
batch_size = 8
lr = { start = 1e-3 }
sites = [{ pattern = \"linear1\", C = 4 }]
losses = [{ kind = \"faithfulness\", coeff = 1 }]
";

#[test]
fn data_that_no_target_has() {
    let text = format!(
        "{TARGET}{DECOMPOSE}[stage.decompose.params.data]
feature_probability = 0.5
generation = \"exactly_six_active\"
prefix_window = -2
n_features = 7
"
    );
    let expected = "error: parameter `data.generation` of stage `decompose`: unknown value `exactly_six_active`
  --> p.toml:15:14
   |
15 | generation = \"exactly_six_active\"
   |              ^^^^^^^^^^^^^^^^^^^^
   |
   = hint: did you mean `exactly_one_active`?

error: parameter `data.prefix_window` of stage `decompose`: expected a whole number of at least 0, found `-2`
  --> p.toml:16:17
   |
16 | prefix_window = -2
   |                 ^^

error: parameter `data` of stage `decompose`: unknown key `n_features`
  --> p.toml:17:1
   |
17 | n_features = 7
   | ^^^^^^^^^^
   |
   = hint: known keys: `feature_probability`, `generation`, `prefix_window`

found 3 mistakes
";
    assert_refused(&text, &[], expected);
    let text = format!("{TARGET}{DECOMPOSE}data = \"exactly_one_active\"\n");
    let expected =
        "error: parameter `data` of stage `decompose`: expected a table, found a string `\"exactly_one_active\"`
  --> p.toml:13:8
   |
13 | data = \"exactly_one_active\"
   |        ^^^^^^^^^^^^^^^^^^^^
";
    assert_refused(&text, &[], expected);
    let text = format!("{TARGET}{DECOMPOSE}data = {{ feature_probability = 1.5 }}\n");
    let expected = "error: parameter `data.feature_probability` of stage `decompose`: must be in [0, 1], found 1.5
  --> p.toml:13:32
   |
13 | data = { feature_probability = 1.5 }
   |                                ^^^
";
    assert_refused(&text, &[], expected);
}

#[test]
fn metrics_that_cannot_be_measured() {
    let text = format!(
        "{TARGET}{DECOMPOSE}[stage.decompose.params.evaluation]
every = 10
slow_every = 25
metrics = [
  {{ kind = \"ci_histograms\", n_batches_accum = 0 }},
  {{ kind = \"ci_l0\", groups = {{ first = [\"linear1\", \"linear(\"] }} }},
  {{ kind = \"permuted_ci_plots\", dense_patterns = \"linear1\" }},
  {{ kind = \"identity_ci_error\", identity = [{{ pattern = \"linear1\" }}] }},
  {{ kind = \"pgd_multi_batch_recon\", init = \"random\", step_size = -0.1, n_steps = 2, gradient_accumulation_steps = 0 }},
  {{ kind = \"ce_and_kl\" }},
  \"uv_plot\",
]
"
    );
    let expected = "error: parameter `evaluation.metrics[2].dense_patterns` of stage `decompose`: expected a list, found a string `\"linear1\"`
  --> p.toml:19:50
   |
19 |   { kind = \"permuted_ci_plots\", dense_patterns = \"linear1\" },
   |                                                  ^^^^^^^^^

error: parameter `evaluation.metrics[3].identity[0]` of stage `decompose`: missing key `n_features`
  --> p.toml:20:45
   |
20 |   { kind = \"identity_ci_error\", identity = [{ pattern = \"linear1\" }] },
   |                                             ^^^^^^^^^^^^^^^^^^^^^^^

error: parameter `evaluation.metrics[5]` of stage `decompose`: missing key `rounding_threshold`
  --> p.toml:22:3
   |
22 |   { kind = \"ce_and_kl\" },
   |   ^^^^^^^^^^^^^^^^^^^^^^

error: parameter `evaluation.metrics[6]` of stage `decompose`: unknown value `uv_plot`
  --> p.toml:23:3
   |
23 |   \"uv_plot\",
   |   ^^^^^^^^^
   |
   = hint: did you mean `uv_plots`?

found 4 mistakes
";
    assert_refused(&text, &[], expected);
}

#[test]
fn metrics_out_of_range() {
    let text = format!(
        "{TARGET}{DECOMPOSE}[stage.decompose.params.evaluation]
every = 10
slow_every = 25
significance_threshold = -0.5
metrics = [
  {{ kind = \"ci_histograms\", n_batches_accum = 0 }},
  {{ kind = \"ci_l0\", groups = {{ first = [\"linear1\", \"linear(\"] }} }},
  {{ kind = \"pgd_multi_batch_recon\", init = \"random\", step_size = -0.1, n_steps = 2, gradient_accumulation_steps = 0 }},
  {{ kind = \"stochastic_recon_subset_ce_and_kl\" }},
  \"ci_histograms\",
]
"
    );
    let expected = "error: parameter `evaluation.slow_every` of stage `decompose`: must be a multiple of `evaluation.every`, which is 10, found 25
  --> p.toml:15:14
   |
15 | slow_every = 25
   |              ^^

error: parameter `evaluation.significance_threshold` of stage `decompose`: must not be negative, found -0.5
  --> p.toml:16:26
   |
16 | significance_threshold = -0.5
   |                          ^^^^

error: parameter `evaluation.metrics[0].n_batches_accum` of stage `decompose`: must be at least 1, found 0
  --> p.toml:18:47
   |
18 |   { kind = \"ci_histograms\", n_batches_accum = 0 },
   |                                               ^

error: parameter `evaluation.metrics[1].groups.first[1]` of stage `decompose`: `linear(` is not a regular expression once `*` is replaced by `.*`, expected one such as `h.0.*`
  --> p.toml:19:52
   |
19 |   { kind = \"ci_l0\", groups = { first = [\"linear1\", \"linear(\"] } },
   |                                                    ^^^^^^^^^

error: parameter `evaluation.metrics[2].step_size` of stage `decompose`: must not be negative, found -0.1
  --> p.toml:20:66
   |
20 |   { kind = \"pgd_multi_batch_recon\", init = \"random\", step_size = -0.1, n_steps = 2, gradient_accumulation_steps = 0 },
   |                                                                  ^^^^

error: parameter `evaluation.metrics[2].gradient_accumulation_steps` of stage `decompose`: must be at least 1, found 0
  --> p.toml:20:115
   |
20 |   { kind = \"pgd_multi_batch_recon\", init = \"random\", step_size = -0.1, n_steps = 2, gradient_accumulation_steps = 0 },
   |                                                                                                                   ^

error: parameter `evaluation.metrics[3].include_patterns` of stage `decompose`: is empty, as is `exclude_patterns`; expected at least one subset of sites, such as `attention = [\"*.attn.*\"]`
  --> p.toml:21:3
   |
21 |   { kind = \"stochastic_recon_subset_ce_and_kl\" },
   |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

error: parameter `evaluation.metrics[4].kind` of stage `decompose`: names a metric that is in the list already
  --> p.toml:22:3
   |
22 |   \"ci_histograms\",
   |   ^^^^^^^^^^^^^^^

found 8 mistakes
";
    assert_refused(&text, &[], expected);
}
