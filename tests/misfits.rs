//! Parameters that are right in themselves but do not fit the target, which only a run can find out: the whole report.

use crate::support::Bench;

/// Two models of vectors, and one of tokens.
const TARGETS: &str = r#"
[stage.vectors]
uses = "train.tms"
params = { n_features = 5, n_hidden = 2, n_hidden_layers = 1, synced_inputs = [[0, 1]], steps = 1, restarts = 1 }

[stage.two_features]
uses = "train.tms"
params = { n_features = 2, n_hidden = 2, steps = 1, restarts = 1 }

[stage.tokens]
uses = "train.induction_head"
[stage.tokens.params]
vocab_size = 4
seq_len = 8
d_model = 4
n_heads = 1
n_layers = 1
prefix_window = 3
steps = 1
batch_size = 2
lr = { start = 1e-3 }
"#;

/// Runs a decomposition of each target with the parameters beside it, and asserts what it fails with.
///
/// Evaluations are far apart and the first one is not slow: what is found at once is found before the training.
#[track_caller]
fn assert_misfits(cases: &[(&str, &str, &str)]) {
    let (mut text, mut expected) = (TARGETS.to_owned(), String::new());
    for (i, (target, parameters, message)) in cases.iter().enumerate() {
        let (sites, hidden) = match *target {
            "tokens" => ("blocks.*.attn.q_proj", "blocks.*.attn.k_proj"),
            _ => ("linear*", "hidden_layers.*"),
        };
        let hidden =
            if *target == "two_features" { String::new() } else { format!(", {{ pattern = \"{hidden}\", C = 3 }}") };
        text += &format!(
            r#"
[stage.case{i}]
uses = "decompose.spd"
inputs = {{ target = "{target}" }}
[stage.case{i}.params]
steps = 100_000_000
batch_size = 4096
lr = {{ start = 1e-3 }}
sites = [{{ pattern = "{sites}", C = 4 }}{hidden}]
losses = [{{ kind = "stochastic_recon", coeff = 1.0 }}]
{parameters}
"#
        );
        expected += &format!("error: stage `case{i}` failed: {message}\n");
    }
    let bench = Bench::new().file("p.toml", text);
    let check = bench.run(&["check", "p.toml"]);
    assert_eq!((check.code, &*check.stderr), (Some(0), ""), "each is right in itself");
    bench.run(&["run", "p.toml", "--quiet", "--keep-going", "--jobs", "1"]).assert(5, "", &expected);
}

#[test]
fn data_that_the_target_has_not_got() {
    let own = "without `data` the inputs are those the target was trained on";
    assert_misfits(&[
        (
            "vectors",
            "data = { prefix_window = 3 }",
            &format!(
                "`data.prefix_window`: expected a target that reads induction sequences, found one that reads vectors
  hint: leave out `data.prefix_window`; {own}"
            ),
        ),
        (
            "tokens",
            "data = { feature_probability = 0.5 }",
            &format!(
                "`data.feature_probability`: expected a target that reads vectors, found one that reads sequences of tokens
  hint: leave out `data.feature_probability`; {own}"
            ),
        ),
        (
            "tokens",
            "data = { generation = \"exactly_two_active\" }",
            &format!(
                "`data.generation`: expected a target that reads vectors, found one that reads sequences of tokens
  hint: leave out `data.generation`; {own}"
            ),
        ),
    ]);
}

#[test]
fn data_out_of_the_targets_range() {
    assert_misfits(&[
        (
            "vectors",
            "data = { generation = \"exactly_two_active\" }",
            "`data.generation`: expected `at_least_zero_active`, the only choice for a target with `synced_inputs`
  hint: leave out `data.generation`; without `data` the inputs are those the target was trained on",
        ),
        (
            "two_features",
            "data = { generation = \"exactly_three_active\" }",
            "`data.generation`: needs at least 3 features, found n_features = 2
  hint: all but `data.generation` is the target's own; without `data` the inputs are those it was trained on",
        ),
        (
            "tokens",
            "data = { prefix_window = 6 }",
            "`data.prefix_window`: must be from 2 to seq_len - 3 = 5, found 6
  hint: all but `data.prefix_window` is the target's own; without `data` the inputs are those it was trained on",
        ),
    ]);
}

#[test]
fn metrics_of_tokens_on_vectors_and_metrics_of_features_on_tokens() {
    let slow = |metrics: &str| format!("evaluation = {{ slow_on_first_step = false, metrics = [{metrics}] }}");
    let tokens = "expects a target that reads tokens, found one that reads vectors
  hint: leave it out: nothing comes next after a vector";
    let vectors = "expects a target that reads vectors, found one that reads tokens
  hint: leave it out: it looks at one feature at a time, and tokens have none";
    assert_misfits(&[
        (
            "vectors",
            &slow("\"uv_plots\", { kind = \"ce_and_kl\", rounding_threshold = 0.1 }"),
            &format!("`evaluation.metrics[1]`: `ce_and_kl` {tokens}"),
        ),
        (
            "vectors",
            &slow("{ kind = \"stochastic_recon_subset_ce_and_kl\", include_patterns = { all = [\"*\"] } }"),
            &format!("`evaluation.metrics[0]`: `stochastic_recon_subset_ce_and_kl` {tokens}"),
        ),
        ("tokens", &slow("\"ci_histograms\", \"uv_plots\""), &format!("`evaluation.metrics[1]`: `uv_plots` {vectors}")),
        ("tokens", &slow("\"permuted_ci_plots\""), &format!("`evaluation.metrics[0]`: `permuted_ci_plots` {vectors}")),
        ("tokens", &slow("\"identity_ci_error\""), &format!("`evaluation.metrics[0]`: `identity_ci_error` {vectors}")),
        ("tokens", "evaluation = { dense = [{ pattern = \"*\", k = 2 }] }", &format!("`evaluation.dense`: {vectors}")),
    ]);
}

#[test]
fn solutions_that_a_model_cannot_have() {
    let slow = |rest: &str| format!("evaluation = {{ slow_on_first_step = false, {rest} }}");
    assert_misfits(&[
        (
            "vectors",
            &slow("identity = [{ pattern = \"linear*\", n_features = 7 }]"),
            "`evaluation.identity`: pattern `linear*` expects 7 features, but the target has 5
  hint: say `n_features = 5`",
        ),
        (
            "vectors",
            &slow("identity = [{ pattern = \"linear1\", n_features = 5 }]"),
            "`evaluation.identity`: pattern `linear1` expects a component for each of 5 features, but site `linear1` has 4 components
  hint: give the site at least 5 components (`C`), or leave the pattern out",
        ),
        (
            "vectors",
            &slow("metrics = [\"ci_l0\", { kind = \"identity_ci_error\", dense = [{ pattern = \"hidden*\", k = 9 }] }]"),
            "`evaluation.metrics[1].dense`: pattern `hidden*` expects 9 components that act together, but site `hidden_layers.0` has 3 components
  hint: give the site at least 9 components (`C`), or leave the pattern out",
        ),
    ]);
}

#[test]
fn subsets_without_a_site() {
    let subset = |lists: &str| {
        format!("evaluation = {{ metrics = [{{ kind = \"stochastic_recon_subset_ce_and_kl\", {lists} }}] }}")
    };
    let sites = "the sites are `blocks.0.attn.q_proj`, `blocks.0.attn.k_proj`
  hint: a pattern matches whole names; `*` crosses dots";
    assert_misfits(&[
        (
            "tokens",
            &subset("include_patterns = { queries = [\"*.q_proj\"], mlp = [\"mlp\", \"ff\"] }"),
            &format!(
                "`evaluation.metrics[0].include_patterns`: subset `mlp` is empty: none of its patterns matches a site; {sites}"
            ),
        ),
        (
            "tokens",
            &subset("exclude_patterns = { no_attention = [\"*attn*\"] }"),
            &format!(
                "`evaluation.metrics[0].exclude_patterns`: subset `no_attention` is empty: its patterns match every site; {sites}"
            ),
        ),
    ]);
}
