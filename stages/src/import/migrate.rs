//! Makes an old configuration a new one: what the reference does with the raw mapping before it checks it.
//!
//! The migrations run in the reference's order. Two things are done better than there. The coefficients of losses that
//! stood at the top of old files become losses instead of being dropped, which left such files without any. And
//! whatever is dropped is noted, to be said in the pipeline that is written.

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::value::Origin;

use super::fields::{Mistakes, number, text};
use super::yaml::{Data, Field, Fields, Node};

/// A configuration on its way.
pub(super) struct Raw<'a> {
    /// Its fields.
    pub(super) fields: Fields,
    /// What the reader of the pipeline should know.
    pub(super) notes: &'a mut Vec<String>,
    /// What is wrong.
    pub(super) mistakes: &'a mut Mistakes,
}

/// Every migration, in order.
const MIGRATIONS: &[fn(&mut Raw<'_>)] = &[
    drop_eval_metrics,
    module_info_from_patterns,
    schedule_from_scalars,
    causal_importance_of_the_paper,
    losses_from_coefficients,
    drop_what_is_gone,
    rename,
    drop_metrics_with_extra_arguments,
    move_classes,
    fill,
    complete_metrics,
];

/// Runs every migration.
pub(super) fn migrate(raw: &mut Raw<'_>) {
    for migration in MIGRATIONS {
        migration(raw);
    }
}

impl Raw<'_> {
    fn get(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    fn take(&mut self, key: &str) -> Option<Field> {
        let position = self.fields.iter().position(|field| field.key == key)?;
        Some(self.fields.remove(position))
    }

    /// Takes a field; one that holds nothing counts as left out.
    fn take_value(&mut self, key: &str) -> Option<Field> {
        self.take(key).filter(|field| !matches!(field.value.data, Data::Null))
    }

    fn put(&mut self, key: &str, value: Node) {
        self.fields.push(field(key, value));
    }

    /// Drops a field and says so if it held anything.
    fn drop(&mut self, key: &str, why: &str) {
        if let Some(dropped) = self.take_value(key) {
            self.notes.push(format!("`{key}: {}` is dropped: {why}", short(&dropped.value)));
        }
    }

    /// Returns the entries of a list of metrics, to change them.
    fn metrics(&mut self, list: &str) -> Option<&mut Vec<Node>> {
        match &mut self.fields.iter_mut().find(|field| field.key == list)?.value.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }
}

fn field(key: &str, value: Node) -> Field {
    Field { key: key.to_owned(), key_origin: value.origin.clone(), value }
}

fn scalar(text: &str, origin: &Origin) -> Node {
    Node { origin: origin.clone(), data: Data::Scalar(text.to_owned()) }
}

/// Returns a value as one line of YAML, or what it is if it is not short.
fn short(value: &Node) -> String {
    match &value.data {
        Data::Scalar(text) => text.clone(),
        Data::List(items) if items.iter().all(|item| matches!(item.data, Data::Scalar(_))) => {
            format!("[{}]", items.iter().map(short).collect::<Vec<_>>().join(", "))
        }
        _ => "…".to_owned(),
    }
}

/// The two lists of metrics.
const LISTS: [&str; 2] = ["loss_metric_configs", "eval_metric_configs"];

fn drop_eval_metrics(raw: &mut Raw<'_>) {
    raw.drop("eval_metrics", "an old list of names; metrics are chosen by `eval_metric_configs`");
}

/// One number of components for all modules becomes one for each pattern.
fn module_info_from_patterns(raw: &mut Raw<'_>) {
    let lists = [("target_module_patterns", "module_info"), ("identity_module_patterns", "identity_module_info")];
    if !lists.iter().any(|(old, _)| raw.get(old).is_some()) {
        return;
    }
    let components = raw.take_value("C");
    for (old, new) in lists {
        let Some(patterns) = raw.take_value(old) else { continue };
        let Some(components) = &components else {
            let message = format!("`{old}` needs `C`, the number of components, which is missing");
            raw.mistakes.push(Diagnostic::new(message).at(Some(&patterns.key_origin)));
            continue;
        };
        let Data::List(items) = patterns.value.data else {
            let message = format!("expected a list of patterns, found {}", patterns.value.described());
            raw.mistakes.push(Diagnostic::new(message).at(Some(&patterns.value.origin)));
            continue;
        };
        let with_components = |pattern: Node| {
            let origin = pattern.origin.clone();
            let fields = vec![field("module_pattern", pattern), field("C", components.value.clone())];
            Node { origin, data: Data::Table(fields) }
        };
        let data = Data::List(items.into_iter().map(with_components).collect());
        raw.put(new, Node { origin: patterns.value.origin, data });
    }
}

/// A learning rate, the name of its schedule and the fraction of its warm-up become one table.
fn schedule_from_scalars(raw: &mut Raw<'_>) {
    let Some(rate) = raw.take_value("lr") else { return };
    let shape = raw.take_value("lr_schedule");
    let shape = shape.map_or_else(|| scalar("constant", &rate.key_origin), |field| field.value);
    let is = |name: &str| text(&shape).is_ok_and(|found| found == name);
    if is("exponential") {
        let message = "`exponential` is not a schedule any more, expected `constant`, `cosine` or `linear`";
        raw.mistakes.push(Diagnostic::new(message).at(Some(&shape.origin)));
    }
    if is("linear") {
        let note = "The old `lr_schedule: linear` ends where it starts, as the reference's migration makes it; it once \
                    fell to zero, which would be `final_fraction = 0.0`";
        raw.notes.push(note.to_owned());
    }
    let origin = rate.value.origin.clone();
    let last = scalar(if is("cosine") { "0.0" } else { "1.0" }, &shape.origin);
    let mut fields = vec![field("start_val", rate.value), field("fn_type", shape), field("final_val_frac", last)];
    fields.extend(raw.take_value("lr_warmup_pct").map(|warmup| field("warmup_pct", warmup.value)));
    raw.put("lr_schedule", Node { origin, data: Data::Table(fields) });
}

/// Configurations of the paper's time say how many neurons the networks have, and know no delta component.
fn causal_importance_of_the_paper(raw: &mut Raw<'_>) {
    let Some(neurons) = raw.take_value("n_ci_mlp_neurons") else { return };
    if matches!(number(&neurons.value), Ok(0.0)) {
        let message = "networks without hidden neurons are not supported, expected `n_ci_mlp_neurons` to be at least 1";
        raw.mistakes.push(Diagnostic::new(message).at(Some(&neurons.value.origin)));
    }
    let origin = neurons.value.origin.clone();
    raw.put("ci_fn_type", scalar("mlp", &origin));
    raw.put("ci_fn_hidden_dims", Node { origin: origin.clone(), data: Data::List(vec![neurons.value]) });
    if raw.get("use_delta_component").is_none() {
        raw.put("use_delta_component", scalar("false", &origin));
        raw.notes
            .push("A configuration of the paper's time (`n_ci_mlp_neurons`): there is no delta component".to_owned());
    }
}

/// Old coefficients and the losses they weighed; one loss may have had several names.
const COEFFICIENTS: &[(&str, &str)] = &[
    ("faithfulness_coeff", "FaithfulnessLoss"),
    ("recon_coeff", "CIMaskedReconLoss"),
    ("ci_recon_coeff", "CIMaskedReconLoss"),
    ("recon_layerwise_coeff", "CIMaskedReconLayerwiseLoss"),
    ("ci_recon_layerwise_coeff", "CIMaskedReconLayerwiseLoss"),
    ("stochastic_recon_coeff", "StochasticReconLoss"),
    ("stochastic_recon_layerwise_coeff", "StochasticReconLayerwiseLoss"),
    (IMPORTANCE, "ImportanceMinimalityLoss"),
];

const IMPORTANCE: &str = "importance_minimality_coeff";

/// The old parameters of importance minimality, which keep their names.
const OF_IMPORTANCE: [&str; 4] = ["pnorm", "p_anneal_start_frac", "p_anneal_final_p", "p_anneal_end_frac"];

fn losses_from_coefficients(raw: &mut Raw<'_>) {
    let has_losses = raw.metrics(LISTS[0]).is_some_and(|losses| !losses.is_empty());
    if has_losses || !COEFFICIENTS.iter().any(|(old, _)| raw.get(old).is_some()) {
        return;
    }
    let mut losses: Vec<(&str, Node)> = Vec::new();
    let mut names = Vec::new();
    for (old, class) in COEFFICIENTS {
        let Some(coefficient) = raw.take_value(old) else { continue };
        // Zero switched a loss off.
        if matches!(number(&coefficient.value), Ok(0.0)) {
            continue;
        }
        if losses.iter().any(|(known, _)| known == class) {
            let message = format!("`{old}` is another name of a coefficient that is given too, for `{class}`");
            raw.mistakes.push(Diagnostic::new(message).at(Some(&coefficient.key_origin)));
            continue;
        }
        let origin = coefficient.key_origin.clone();
        let mut fields = vec![field("classname", scalar(class, &origin)), field("coeff", coefficient.value)];
        if *old == IMPORTANCE {
            fields.extend(OF_IMPORTANCE.iter().filter_map(|parameter| raw.take_value(parameter)));
        }
        names.push(format!("`{old}`"));
        losses.push((class, Node { origin, data: Data::Table(fields) }));
    }
    let Some((_, first)) = losses.first() else { return };
    let origin = first.origin.clone();
    raw.take(LISTS[0]);
    raw.put(LISTS[0], Node { origin, data: Data::List(losses.into_iter().map(|(_, loss)| loss).collect()) });
    raw.notes.push(format!("The losses are made from old coefficients: {}", names.join(", ")));
}

/// What the reference once had and now deletes.
const GONE: &[&str] = &[
    "image_on_first_step",
    "image_freq",
    "metrics_fns",
    "figures_fns",
    "schatten_coeff",
    "embedding_recon_coeff",
    "is_embed_unembed_recon",
    "out_recon_coeff",
    "faithfulness_coeff",
    "stochastic_recon_coeff",
    "stochastic_recon_layerwise_coeff",
    "recon_coeff",
    "recon_layerwise_coeff",
    "ci_recon_coeff",
    "ci_recon_layerwise_coeff",
    "importance_minimality_coeff",
    "pnorm",
    "p_anneal_start_frac",
    "p_anneal_final_p",
    "p_anneal_end_frac",
    "dist_backend",
    "lr_exponential_halflife",
    "out_dir",
    "n_examples_until_dead",
    "gradient_accumulation_steps",
];

fn drop_what_is_gone(raw: &mut Raw<'_>) {
    for key in GONE {
        raw.drop(key, "the reference has no such setting any more");
    }
}

/// Old names and new ones.
const RENAMED: &[(&str, &str)] = &[
    ("grad_clip_norm", "grad_clip_norm_components"),
    ("print_freq", "eval_freq"),
    ("pretrained_model_name_hf", "pretrained_model_name"),
    ("gate_type", "ci_fn_type"),
    ("gate_hidden_dims", "ci_fn_hidden_dims"),
];

fn rename(raw: &mut Raw<'_>) {
    for (old, new) in RENAMED {
        let Some(field) = raw.take(old) else { continue };
        if raw.get(new).is_some() {
            let message = format!("`{old}` is the old name of `{new}`, which is given too");
            raw.mistakes.push(Diagnostic::new(message).at(Some(&field.key_origin)));
        } else {
            raw.fields.push(Field { key: (*new).to_owned(), ..field });
        }
    }
}

/// Returns a field of an entry of a list of metrics.
fn entry<'n>(metric: &'n Node, key: &str) -> Option<&'n Node> {
    match &metric.data {
        Data::Table(fields) => fields.iter().find(|field| field.key == key).map(|field| &field.value),
        _ => None,
    }
}

fn class(metric: &Node) -> &str {
    entry(metric, "classname").and_then(|class| text(class).ok()).unwrap_or_default()
}

fn drop_metrics_with_extra_arguments(raw: &mut Raw<'_>) {
    const EXTRA: &str = "extra_init_kwargs";
    for list in LISTS {
        let Some(metrics) = raw.metrics(list) else { continue };
        let dropped: Vec<_> = metrics.iter().filter(|metric| entry(metric, EXTRA).is_some()).map(class).collect();
        let note =
            dropped.iter().map(|class| format!("`{class}` of `{list}` is dropped: its `{EXTRA}` is an old form"));
        let note: Vec<_> = note.collect();
        metrics.retain(|metric| entry(metric, EXTRA).is_none());
        raw.notes.extend(note);
    }
}

fn move_classes(raw: &mut Raw<'_>) {
    let class = raw.fields.iter_mut().find(|field| field.key == "pretrained_model_class");
    if let Some(Data::Scalar(path)) = class.map(|field| &mut field.value.data)
        && let Some(rest) = path.strip_prefix("simple_stories_train.models.")
    {
        *path = format!("spd.pretrain.models.{rest}");
    }
}

fn fill(raw: &mut Raw<'_>) {
    let copies = [("eval_batch_size", "batch_size"), ("slow_eval_freq", "eval_freq")];
    for (key, from) in copies {
        if raw.get(key).is_none()
            && let Some(value) = raw.get(from).map(|field| field.value.clone())
        {
            raw.put(key, value);
        }
    }
    if raw.get("train_log_freq").is_none() {
        let origin = Origin { source: 0, span: 0..0 };
        raw.put("train_log_freq", scalar("50", &origin));
    }
}

/// Importance minimality once had no `beta`, and figures said which sigmoid they showed.
fn complete_metrics(raw: &mut Raw<'_>) {
    for list in LISTS {
        let mut has_no_beta = false;
        for metric in raw.metrics(list).into_iter().flatten() {
            let needs_beta = class(metric) == "ImportanceMinimalityLoss" && entry(metric, "beta").is_none();
            let drops_sigmoid = class(metric) == "PermutedCIPlots";
            has_no_beta |= needs_beta;
            let origin = metric.origin.clone();
            let Data::Table(fields) = &mut metric.data else { continue };
            if needs_beta {
                fields.push(field("beta", scalar("0.0", &origin)));
            }
            if drops_sigmoid {
                fields.retain(|field| field.key != "sigmoid_type");
            }
        }
        if has_no_beta && list == LISTS[0] {
            raw.notes.push("`ImportanceMinimalityLoss` has no `beta`, which then is 0".to_owned());
        }
    }
}
