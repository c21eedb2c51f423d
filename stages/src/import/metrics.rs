//! What the reference's losses and metrics are called here, and their parameters: two tables.

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::suggest::{did_you_mean, listed};

use super::fields::Form::{Count, Groups, Number, Routing, Texts, Word};
use super::fields::Missing::{Means, Refused, Unset};
use super::fields::{Mistakes, Rule, Table, items, text};
use super::toml::Toml;
use super::yaml::{Data, Node};

/// A class of the reference, its kind here, and its parameters besides the coefficient.
type Class = (&'static str, &'static str, &'static [Rule]);

const ROUTED: Rule = ("routing", "routing", Routing, Means("\"uniform_k_subset\""));
const INIT: Rule = ("init", "init", Word(&["random", "ones", "zeroes"]), Refused);
const STEP_SIZE: Rule = ("step_size", "step_size", Number, Refused);
const N_STEPS: Rule = ("n_steps", "n_steps", Count, Refused);
const SCOPE: Rule = ("mask_scope", "mask_scope", Word(&["unique_per_datapoint", "shared_across_batch"]), Refused);
const BATCHES: Rule = ("gradient_accumulation_steps", "gradient_accumulation_steps", Count, Refused);
const IMPORTANCE: &[Rule] = &[
    ("pnorm", "p", Number, Refused),
    ("beta", "beta", Number, Means("0.0")),
    ("p_anneal_final_p", "final_p", Number, Unset),
    ("p_anneal_start_frac", "anneal_from", Number, Means("1.0")),
    ("p_anneal_end_frac", "anneal_to", Number, Means("1.0")),
    ("eps", "eps", Number, Means("1e-12")),
];
const PATTERNS: &[Rule] = &[
    ("identity_patterns", "identity_patterns", Texts, Means("[]")),
    ("dense_patterns", "dense_patterns", Texts, Means("[]")),
];

/// Every loss.
const LOSSES: &[Class] = &[
    ("FaithfulnessLoss", "faithfulness", &[]),
    ("ImportanceMinimalityLoss", "importance_minimality", IMPORTANCE),
    ("UnmaskedReconLoss", "unmasked_recon", &[]),
    ("CIMaskedReconLoss", "ci_masked_recon", &[]),
    ("CIMaskedReconSubsetLoss", "ci_masked_recon_subset", &[ROUTED]),
    ("CIMaskedReconLayerwiseLoss", "ci_masked_recon_layerwise", &[]),
    ("StochasticReconLoss", "stochastic_recon", &[]),
    ("StochasticReconSubsetLoss", "stochastic_recon_subset", &[ROUTED]),
    ("StochasticReconLayerwiseLoss", "stochastic_recon_layerwise", &[]),
    ("StochasticHiddenActsReconLoss", "stochastic_hidden_acts_recon", &[]),
    ("PGDReconLoss", "pgd_recon", &[INIT, STEP_SIZE, N_STEPS, SCOPE]),
    ("PGDReconSubsetLoss", "pgd_recon_subset", &[INIT, STEP_SIZE, N_STEPS, SCOPE, ROUTED]),
    ("PGDReconLayerwiseLoss", "pgd_recon_layerwise", &[INIT, STEP_SIZE, N_STEPS, SCOPE]),
];

/// Every metric that is not a loss.
const METRICS: &[Class] = &[
    (L0, "ci_l0", &[("groups", "groups", Groups, Unset)]),
    ("CIHistograms", "ci_histograms", &[("n_batches_accum", "n_batches_accum", Count, Unset)]),
    ("ComponentActivationDensity", "component_activation_density", &[]),
    ("CIMeanPerComponent", "ci_mean_per_component", &[]),
    ("PermutedCIPlots", "permuted_ci_plots", PATTERNS),
    ("UVPlots", "uv_plots", PATTERNS),
    ("PGDMultiBatchReconLoss", "pgd_multi_batch_recon", &[INIT, STEP_SIZE, N_STEPS, BATCHES]),
    ("PGDMultiBatchReconSubsetLoss", "pgd_multi_batch_recon_subset", &[INIT, STEP_SIZE, N_STEPS, BATCHES, ROUTED]),
    ("CEandKLLosses", "ce_and_kl", &[("rounding_threshold", "rounding_threshold", Number, Refused)]),
    (
        "StochasticReconSubsetCEAndKL",
        "stochastic_recon_subset_ce_and_kl",
        &[
            ("include_patterns", "include_patterns", Groups, Means("{}")),
            ("exclude_patterns", "exclude_patterns", Groups, Means("{}")),
        ],
    ),
];

/// The L0 of the sites, which is always measured here.
const L0: &str = "CI_L0";
/// The metric that says what a faithful decomposition looks like.
const SOLUTION: &str = "IdentityCIError";

/// What the list of metrics of an evaluation comes to.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Metrics.
    pub(super) metrics: Vec<Toml>,
    /// Losses that are only measured.
    pub(super) losses: Vec<Toml>,
    /// Sites of which each component should answer for one feature: pattern and number of features.
    pub(super) identity: Vec<(String, u64)>,
    /// Sites of which a few components should act together: pattern and number of components.
    pub(super) dense: Vec<(String, u64)>,
}

/// Returns the losses of a list in which each must have a coefficient.
pub(super) fn losses(list: Node, mistakes: &mut Mistakes) -> Vec<Toml> {
    let origin = list.origin.clone();
    let items = match items(list, "losses") {
        Ok(items) if items.is_empty() => {
            let hint =
                "a loss is `- classname: StochasticReconLoss` with `coeff: 1.0`; without any there is nothing to train";
            let message = "`loss_metric_configs` is empty, expected at least one loss";
            mistakes.push(Diagnostic::new(message).at(Some(&origin)).hint(hint));
            return Vec::new();
        }
        Ok(items) => items,
        Err(mistake) => {
            mistakes.push(mistake);
            return Vec::new();
        }
    };
    let mut losses = Vec::new();
    for item in items {
        let Some((mut table, class)) = classed(item, mistakes) else { continue };
        let Some((_, kind, rules)) = find(LOSSES, &class) else {
            mistakes.push(unknown(&class, "loss", LOSSES));
            continue;
        };
        let mut fields = table.convert(&[("coeff", "coeff", Number, Refused)], mistakes);
        fields.extend(table.convert(rules, mistakes));
        table.finish(mistakes);
        losses.push(Toml::variant(kind, fields));
    }
    losses
}

/// Returns what an evaluation measures.
pub(super) fn measured(list: Node, notes: &mut Vec<String>, mistakes: &mut Mistakes) -> Measured {
    let mut measured = Measured::default();
    let items = match items(list, "metrics") {
        Ok(items) => items,
        Err(mistake) => {
            mistakes.push(mistake);
            return measured;
        }
    };
    for item in items {
        let Some((mut table, class)) = classed(item, mistakes) else { continue };
        if let Some((_, kind, rules)) = find(LOSSES, &class) {
            // Their weight means nothing: they are not trained.
            table.take("coeff");
            let weight = ("coeff".to_owned(), Toml::float(0.0));
            let fields = [weight].into_iter().chain(table.convert(rules, mistakes)).collect();
            measured.losses.push(Toml::variant(kind, fields));
        } else if let Some((name, kind, rules)) = find(METRICS, &class) {
            let fields = table.convert(rules, mistakes);
            if *name == L0 && fields.is_empty() {
                let note =
                    "`CI_L0`: the L0 of every site is always measured; for its bar chart add \"ci_l0\" to `metrics`";
                notes.push(note.to_owned());
            } else {
                measured.metrics.push(Toml::variant(kind, fields));
            }
        } else if name(&class) == SOLUTION {
            measured.identity = pairs(table.take("identity_ci").map(|field| field.value), "n_features", mistakes);
            measured.dense = pairs(table.take("dense_ci").map(|field| field.value), "k", mistakes);
        } else {
            mistakes.push(unknown(&class, "metric", METRICS));
            continue;
        }
        table.finish(mistakes);
    }
    measured
}

/// Returns pairs of a pattern and a number as a list of tables.
pub(super) fn listed_pairs(pairs: &[(String, u64)], pattern: &str, number: &str) -> Toml {
    let table = |(site, count): &(String, u64)| {
        Toml::Table(vec![(pattern.to_owned(), Toml::text(site)), (number.to_owned(), Toml::integer(*count))])
    };
    Toml::List(pairs.iter().map(table).collect())
}

fn pairs(list: Option<Node>, number: &'static str, mistakes: &mut Mistakes) -> Vec<(String, u64)> {
    let Some(list) = list else { return Vec::new() };
    patterns(list, "layer_pattern", number, mistakes)
}

/// Returns the pattern and the number of each table of a list.
pub(super) fn patterns(
    list: Node,
    pattern: &'static str,
    number: &'static str,
    mistakes: &mut Mistakes,
) -> Vec<(String, u64)> {
    let items = items(list, "tables").unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        Vec::new()
    });
    let mut pairs = Vec::new();
    for item in items {
        let what = format!("a table with `{pattern}` and `{number}`");
        let Some(mut table) = Table::of(item, &what, mistakes) else { continue };
        let site = table.require(pattern, mistakes);
        let count = table.require(number, mistakes);
        table.finish(mistakes);
        if let (Some(site), Some(count)) = (site, count) {
            match (text(&site), super::fields::count(&count)) {
                (Ok(site), Ok(count)) => pairs.push((site.to_owned(), count)),
                (site, count) => mistakes.extend(site.err().into_iter().chain(count.err())),
            }
        }
    }
    pairs
}

/// Returns an entry of a list of losses or metrics with its class.
fn classed(item: Node, mistakes: &mut Mistakes) -> Option<(Table, Node)> {
    let what = match &item.data {
        Data::Table(fields) => {
            fields.iter().find(|field| field.key == "classname").and_then(|field| match &field.value.data {
                Data::Scalar(class) => Some(format!("`{class}`")),
                _ => None,
            })
        }
        _ => None,
    };
    let mut table = Table::of(item, &what.unwrap_or_else(|| "a table with a `classname`".to_owned()), mistakes)?;
    let class = table.require("classname", mistakes)?;
    match text(&class) {
        Ok(_) => Some((table, class)),
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    }
}

fn name(class: &Node) -> &str {
    text(class).unwrap_or_default()
}

fn find(classes: &'static [Class], class: &Node) -> Option<&'static Class> {
    classes.iter().find(|(known, ..)| *known == name(class))
}

fn unknown(class: &Node, what: &str, classes: &'static [Class]) -> Diagnostic {
    let known: Vec<&str> =
        classes.iter().chain(LOSSES.iter().filter(|_| what == "metric")).map(|(known, ..)| *known).collect();
    let hint = did_you_mean(name(class), known.iter().copied())
        .unwrap_or_else(|| format!("known classes: {}", listed(known.iter().copied())));
    Diagnostic::new(format!("spdflow has no {what} `{}`", name(class))).at(Some(&class.origin)).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decomposition::loss::LossConfig;

    #[test]
    fn every_loss_of_a_decomposition_can_be_imported() {
        for class in LossConfig::CLASSES {
            assert!(LOSSES.iter().any(|(known, ..)| known == class), "{class}");
        }
    }
}
