//! Builds our models from recorded ones and replays recorded draws.

use dfdx::prelude::Cpu;
use serde_json::Value;
use spdflow_stages::artifact::tensors::{Tensor, Tensors};
use spdflow_stages::bridge::{DeviceResult, Graph, MaskSource, Var};
use spdflow_stages::decomposition::causal_importance::{CausalImportance, HiddenLayers, SigmoidType};
use spdflow_stages::decomposition::draws::{DrawKey, Draws, Sampling};
use spdflow_stages::decomposition::loss::{
    CiMaskedRecon, CiMaskedReconLayerwise, CiMaskedReconSubset, Faithfulness, ImportanceMinimality, LossConfig,
    MaskScope, PgdInit, PgdRecon, PgdReconLayerwise, PgdReconSubset, StochasticHiddenActsRecon, StochasticRecon,
    StochasticReconLayerwise, StochasticReconSubset, UnmaskedRecon,
};
use spdflow_stages::decomposition::model::ComponentModel;
use spdflow_stages::decomposition::routing::{Routing, StaticProbability};
use spdflow_stages::decomposition::site::{SitePattern, plan};
use spdflow_stages::decomposition::step::OutputLoss;
use spdflow_stages::models::{Activation, InductionHeadConfig, LayerKind, ResidMlpConfig, TargetConfig, TmsConfig};
use spdflow_stages::optimizer::parameters::Parameters;

use crate::support::{Case, Entries, number};

/// Returns the transpose of `[rows, cols]`: recorded activations are `[rows, features]`, ours `[features, rows]`.
pub fn transposed(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|c| (0..rows).map(move |r| data[r * cols + c])).collect()
}

/// Returns a recorded tensor `[.., features]` as `[features, rows]`, integers as floats.
pub fn features(case: &Case, name: &str) -> (Vec<f32>, usize, usize) {
    let tensor = case.tensor(name);
    let cols = *tensor.shape.last().expect("a tensor with axes");
    let data: Vec<f32> = match &tensor.data {
        Entries::F32(data) => data.clone(),
        Entries::I64(data) => data.iter().map(|x| *x as f32).collect(),
    };
    let rows = data.len() / cols;
    (transposed(&data, rows, cols), cols, rows)
}

/// Returns recorded tokens `[.., positions]` as `[1, rows]`, sequences one after the other.
pub fn tokens(case: &Case, name: &str) -> (Vec<f32>, usize, usize) {
    let tokens: Vec<f32> = case.integers(name).iter().map(|token| *token as f32).collect();
    let rows = tokens.len();
    (tokens, 1, rows)
}

/// Returns all tensors below `prefix` with the prefix removed.
pub fn state(case: &Case, prefix: &str) -> Tensors {
    case.names(prefix)
        .into_iter()
        .map(|name| {
            (name[prefix.len()..].to_owned(), Tensor::new(case.shape(name).to_vec(), case.floats(name).to_vec()))
        })
        .collect()
}

/// Returns the configuration of a recorded target, if it is of a kind we have.
pub fn target_config(target: &Value) -> Option<TargetConfig> {
    let config = &target["config"];
    let count = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("target config has no `{key}`")) as usize;
    match target["class_"].as_str()?.rsplit('.').next()? {
        "TMSModel" => Some(TargetConfig::Tms(TmsConfig {
            n_features: count("n_features"),
            n_hidden: count("n_hidden"),
            n_hidden_layers: count("n_hidden_layers"),
            tied_weights: config["tied_weights"].as_bool().unwrap_or(false),
        })),
        "InductionTransformer" => Some(TargetConfig::InductionHead(InductionHeadConfig {
            vocab_size: count("vocab_size"),
            seq_len: count("seq_len"),
            d_model: count("d_model"),
            n_heads: count("n_heads"),
            n_layers: count("n_layers"),
            ff_fanout: count("ff_fanout"),
            use_ff: config["use_ff"].as_bool().expect("a flag"),
            use_pos_encoding: config["use_pos_encoding"].as_bool().expect("a flag"),
            use_layer_norm: config["use_layer_norm"].as_bool().expect("a flag"),
        })),
        "ResidMLP" => Some(TargetConfig::ResidMlp(ResidMlpConfig {
            n_features: count("n_features"),
            d_embed: count("d_embed"),
            d_mlp: count("d_mlp"),
            n_layers: count("n_layers"),
            act_fn: activation(&config["act_fn_name"]),
            in_bias: config["in_bias"].as_bool().unwrap_or(false),
            out_bias: config["out_bias"].as_bool().unwrap_or(false),
        })),
        _ => None,
    }
}

pub fn activation(value: &Value) -> Activation {
    serde_json::from_value(value.clone()).expect("a nonlinearity")
}

/// What a case says about its component model.
pub struct Recipe {
    pub target: TargetConfig,
    pub sites: Vec<SitePattern>,
    pub identities: Vec<SitePattern>,
    pub importance: CausalImportance,
    pub sigmoid: SigmoidType,
}

impl Recipe {
    /// Reads the recipe from a case whose settings are at `json`; none for targets of other issues.
    pub fn read(json: &Value, settings: &Value) -> Option<Self> {
        let target = target_config(&json["target"])?;
        let pattern = |path: &str, c: &Value| SitePattern {
            pattern: path.to_owned(),
            components: c.as_u64().expect("C") as usize,
        };
        let identities: Vec<SitePattern> = settings["identity_module_info"]
            .as_array()
            .map(|list| {
                list.iter()
                    .map(|entry| pattern(entry["module_pattern"].as_str().expect("a pattern"), &entry["C"]))
                    .collect()
            })
            .unwrap_or_default();
        let sites = json["target_module_paths"]
            .as_array()
            .expect("module paths")
            .iter()
            .map(|path| path.as_str().expect("a path"))
            .filter(|path| !path.ends_with(".pre_identity"))
            .map(|path| pattern(path, &json["module_to_c"][path]))
            .collect();
        let hidden = settings["ci_fn_hidden_dims"]
            .as_array()
            .expect("hidden sizes")
            .iter()
            .map(|n| n.as_u64().expect("a size") as usize)
            .collect();
        let hidden = HiddenLayers { hidden };
        let importance = match settings["ci_fn_type"].as_str().expect("a kind of network") {
            "mlp" => CausalImportance::Mlp(hidden),
            "vector_mlp" => CausalImportance::VectorMlp(hidden),
            "shared_mlp" => CausalImportance::SharedMlp(hidden),
            other => panic!("unknown ci_fn_type `{other}`"),
        };
        Some(Self { target, sites, identities, importance, sigmoid: sigmoid_type(&settings["sigmoid_type"]) })
    }

    /// Builds the model with the recorded target weights; its own parameters are random.
    pub fn build(&self, target_state: &Tensors, tie: bool) -> (ComponentModel<Cpu>, Parameters<Cpu>) {
        let device = Cpu::default();
        let target = self.target.load(&device, target_state).expect("the recorded target loads");
        let modules: Vec<(String, LayerKind)> =
            target.modules().iter().map(|module| (module.name.clone(), module.layer.kind())).collect();
        let plans = plan(&target.names(), &modules, &self.sites, &self.identities).expect("recorded sites exist");
        ComponentModel::new(&device, target, plans, self.importance.clone(), self.sigmoid, 0, tie)
            .expect("enough memory")
    }
}

pub fn sigmoid_type(value: &Value) -> SigmoidType {
    serde_json::from_value(value.clone()).expect("a sigmoid type")
}

pub fn output_loss(value: &Value) -> OutputLoss {
    serde_json::from_value(value.clone()).expect("an output loss")
}

pub fn sampling(value: &Value) -> Sampling {
    serde_json::from_value(value.clone()).expect("a sampling")
}

/// Translates the reference's loss configuration.
pub fn loss(config: &Value) -> LossConfig {
    let coeff = number(&config["coeff"]);
    let routing = || match config["routing"]["type"].as_str() {
        Some("static_probability") => {
            Routing::StaticProbability(StaticProbability { p: number(&config["routing"]["p"]) })
        }
        _ => Routing::UniformKSubset,
    };
    let init = || match config["init"].as_str().expect("init") {
        "random" => PgdInit::Random,
        "ones" => PgdInit::Ones,
        "zeroes" => PgdInit::Zeroes,
        other => panic!("unknown init `{other}`"),
    };
    let mask_scope = || match config["mask_scope"].as_str().expect("mask_scope") {
        "unique_per_datapoint" => MaskScope::UniquePerDatapoint,
        "shared_across_batch" => MaskScope::SharedAcrossBatch,
        other => panic!("unknown mask_scope `{other}`"),
    };
    let step_size = || number(&config["step_size"]);
    let n_steps = || config["n_steps"].as_u64().expect("n_steps") as usize;
    match config["classname"].as_str().expect("a class") {
        "FaithfulnessLoss" => LossConfig::Faithfulness(Faithfulness { coeff }),
        "ImportanceMinimalityLoss" => LossConfig::ImportanceMinimality(ImportanceMinimality {
            coeff,
            p: number(&config["pnorm"]),
            beta: number(&config["beta"]),
            final_p: config["p_anneal_final_p"].as_f64(),
            anneal_from: number(&config["p_anneal_start_frac"]),
            anneal_to: number(&config["p_anneal_end_frac"]),
            eps: number(&config["eps"]),
        }),
        "UnmaskedReconLoss" => LossConfig::UnmaskedRecon(UnmaskedRecon { coeff }),
        "CIMaskedReconLoss" => LossConfig::CiMaskedRecon(CiMaskedRecon { coeff }),
        "CIMaskedReconSubsetLoss" => LossConfig::CiMaskedReconSubset(CiMaskedReconSubset { coeff, routing: routing() }),
        "CIMaskedReconLayerwiseLoss" => LossConfig::CiMaskedReconLayerwise(CiMaskedReconLayerwise { coeff }),
        "StochasticReconLoss" => LossConfig::StochasticRecon(StochasticRecon { coeff }),
        "StochasticReconSubsetLoss" => {
            LossConfig::StochasticReconSubset(StochasticReconSubset { coeff, routing: routing() })
        }
        "StochasticReconLayerwiseLoss" => LossConfig::StochasticReconLayerwise(StochasticReconLayerwise { coeff }),
        "StochasticHiddenActsReconLoss" => LossConfig::StochasticHiddenActsRecon(StochasticHiddenActsRecon { coeff }),
        "PGDReconLoss" => LossConfig::PgdRecon(PgdRecon {
            coeff,
            init: init(),
            step_size: step_size(),
            n_steps: n_steps(),
            mask_scope: mask_scope(),
        }),
        "PGDReconSubsetLoss" => LossConfig::PgdReconSubset(PgdReconSubset {
            coeff,
            init: init(),
            step_size: step_size(),
            n_steps: n_steps(),
            mask_scope: mask_scope(),
            routing: routing(),
        }),
        "PGDReconLayerwiseLoss" => LossConfig::PgdReconLayerwise(PgdReconLayerwise {
            coeff,
            init: init(),
            step_size: step_size(),
            n_steps: n_steps(),
            mask_scope: mask_scope(),
        }),
        other => panic!("unknown loss `{other}`"),
    }
}

/// Replays the draws recorded below `prefix`.
pub struct Recorded<'a> {
    pub case: &'a Case,
    /// For example `loss/stoch_n1/draw/` or `step00/`.
    pub prefix: String,
    /// The names of the sites, in our order.
    pub sites: Vec<String>,
}

impl Recorded<'_> {
    pub fn load(&self, graph: &Graph<Cpu>, name: &str) -> DeviceResult<Var<Cpu>, Cpu> {
        let (data, cols, rows) = features(self.case, &format!("{}{name}", self.prefix));
        graph.upload(data, (cols, rows))
    }

    /// Loads a recording with one number for each position.
    pub fn load_row(&self, graph: &Graph<Cpu>, name: &str) -> DeviceResult<Var<Cpu>, Cpu> {
        let (data, cols, rows) = features(self.case, &format!("{}{name}", self.prefix));
        graph.upload(transposed(&data, cols, rows), (1, rows * cols))
    }
}

impl Draws<Cpu> for Recorded<'_> {
    fn source(
        &mut self,
        graph: &Graph<Cpu>,
        key: DrawKey<'_>,
        site: usize,
        _: usize,
        _: Sampling,
    ) -> DeviceResult<MaskSource<Cpu>, Cpu> {
        let source = self.load(graph, &format!("{}/s{}/source/{}", key.class, key.sample, self.sites[site]))?;
        Ok(MaskSource::Given(source))
    }

    fn delta(&mut self, graph: &Graph<Cpu>, key: DrawKey<'_>, site: usize) -> DeviceResult<Var<Cpu>, Cpu> {
        self.load_row(graph, &format!("{}/s{}/delta/{}", key.class, key.sample, self.sites[site]))
    }

    fn routing(
        &mut self,
        graph: &Graph<Cpu>,
        key: DrawKey<'_>,
        _: Routing,
        sites: usize,
    ) -> DeviceResult<Vec<Option<Var<Cpu>>>, Cpu> {
        // Losses without mask samples leave the sample out of the name.
        let with_sample = format!("{}/s{}/routing/", key.class, key.sample);
        let folder = if self.case.names(&format!("{}{with_sample}", self.prefix)).is_empty() {
            format!("{}/routing/", key.class)
        } else {
            with_sample
        };
        (0..sites).map(|s| Ok(Some(self.load_row(graph, &format!("{folder}{}", self.sites[s]))?))).collect()
    }

    fn adversary(
        &mut self,
        graph: &Graph<Cpu>,
        key: DrawKey<'_>,
        site: usize,
        _: usize,
        _: bool,
    ) -> DeviceResult<Var<Cpu>, Cpu> {
        let layer = key.layer.map(|layer| format!("for_layer.{}/", self.sites[layer])).unwrap_or_default();
        self.load(graph, &format!("{}/{layer}pgd_init/{}", key.class, self.sites[site]))
    }

    fn importance_noise(&mut self, graph: &Graph<Cpu>, site: usize, _: usize) -> DeviceResult<Var<Cpu>, Cpu> {
        self.load(graph, &format!("ci_noise/{}", self.sites[site]))
    }
}
