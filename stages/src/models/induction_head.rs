//! The induction-head transformer (spec section 1.3): attention blocks that complete `… S M … S` with M.
//!
//! `x = embed(tokens)`; for each block `x = LN₁(x + attn(x))` and `x = LN₂(x + ff(x))`; `logits = W LN(x)`. Norms and
//! feed-forward layers are optional. Positions enter only here: sines and cosines are added to queries and keys *after*
//! their projections, never to values or to the residual stream.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::StageError;

use super::{Embedding, Layer, Linear, Module, RunModule, TargetModel, as_matrix, run_module};
use crate::artifact::tensors::{Tensor, Tensors};
use crate::bridge::{Backend, DeviceResult, Graph, Var};

/// The shape of an induction-head transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InductionHeadConfig {
    /// Ordinary tokens; there are two more.
    pub vocab_size: usize,
    /// Positions in a sequence.
    pub seq_len: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads in each block.
    pub n_heads: usize,
    /// How many blocks.
    pub n_layers: usize,
    /// How many times wider than the residual stream feed-forward layers are inside.
    pub ff_fanout: usize,
    /// Whether blocks have feed-forward layers.
    pub use_ff: bool,
    /// Whether positions are added to queries and keys.
    pub use_pos_encoding: bool,
    /// Whether blocks and output are normalised.
    pub use_layer_norm: bool,
}

/// A tensor of the state dict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateTensor {
    /// Its key.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: TensorRole,
}

/// What a tensor of the state dict is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorRole {
    /// The token embedding.
    Embedding,
    /// The weight or bias of a linear layer with that many inputs.
    Linear(usize),
    /// The scale of a layer norm.
    NormScale,
    /// The shift of a layer norm.
    NormShift,
    /// Sines and cosines, which are not trained.
    Positions,
}

impl InductionHeadConfig {
    /// Returns how many different tokens there are: 0 begins a sequence, `vocab_size + 1` is the induction token.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.vocab_size + 2
    }

    /// Returns what is wrong with the shape, if anything: the field and what was expected.
    #[must_use]
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        let counts = [
            ("d_model", self.d_model),
            ("n_heads", self.n_heads),
            ("n_layers", self.n_layers),
            ("ff_fanout", if self.use_ff { self.ff_fanout } else { 1 }),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return Some((field, "must be at least 1, found 0".to_owned()));
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            return Some(("n_heads", format!("must divide d_model = {}, found {}", self.d_model, self.n_heads)));
        }
        if self.use_pos_encoding && !self.d_model.is_multiple_of(2) {
            return Some(("d_model", format!("must be even to hold sines and cosines, found {}", self.d_model)));
        }
        None
    }

    /// Returns the state dict's tensors in the reference's order.
    #[must_use]
    pub fn tensors(&self) -> Vec<StateTensor> {
        let (d, inner) = (self.d_model, self.d_model * self.ff_fanout);
        let mut tensors = Vec::new();
        let mut push = |name: String, shape: Vec<usize>, role| tensors.push(StateTensor { name, shape, role });
        push("token_embed.weight".to_owned(), vec![self.n_tokens(), d], TensorRole::Embedding);
        push("pos.pe".to_owned(), vec![1, self.seq_len, d], TensorRole::Positions);
        for i in 0..self.n_layers {
            for projection in PROJECTIONS {
                push(format!("blocks.{i}.attn.{projection}.weight"), vec![d, d], TensorRole::Linear(d));
            }
            if self.use_pos_encoding {
                push(format!("blocks.{i}.attn.pos_enc.pe"), vec![1, self.seq_len, d], TensorRole::Positions);
            }
            if self.use_ff {
                for (name, outputs, inputs) in [("fc1", inner, d), ("fc2", d, inner)] {
                    push(format!("blocks.{i}.ff.{name}.weight"), vec![outputs, inputs], TensorRole::Linear(inputs));
                    push(format!("blocks.{i}.ff.{name}.bias"), vec![outputs], TensorRole::Linear(inputs));
                }
            }
            for norm in ["ln1", "ln2"].iter().filter(|_| self.use_layer_norm) {
                push(format!("blocks.{i}.{norm}.weight"), vec![d], TensorRole::NormScale);
                push(format!("blocks.{i}.{norm}.bias"), vec![d], TensorRole::NormShift);
            }
        }
        if self.use_layer_norm {
            push("ln_f.weight".to_owned(), vec![d], TensorRole::NormScale);
            push("ln_f.bias".to_owned(), vec![d], TensorRole::NormShift);
        }
        push("unembed.weight".to_owned(), vec![self.n_tokens(), d], TensorRole::Linear(d));
        tensors
    }

    /// Returns the sines and cosines `[seq_len, d_model]`: `pe[p, 2k] = sin(p e^{−2k ln 10⁴ / d})`, `pe[p, 2k + 1]` the
    /// cosine of the same.
    #[must_use]
    pub fn positions(&self) -> Vec<f32> {
        let d = self.d_model;
        let value = |position: usize, feature: usize| {
            let rate = (-((feature - feature % 2) as f64) * 1e4_f64.ln() / d as f64).exp();
            let angle = position as f64 * rate;
            if feature.is_multiple_of(2) { angle.sin() as f32 } else { angle.cos() as f32 }
        };
        (0..self.seq_len).flat_map(|position| (0..d).map(move |feature| value(position, feature))).collect()
    }

    /// Returns the position tensors of the state dict.
    #[must_use]
    pub fn position_tensors(&self) -> Vec<(String, Tensor)> {
        let wanted = self.tensors().into_iter().filter(|tensor| tensor.role == TensorRole::Positions);
        wanted.map(|tensor| (tensor.name, Tensor::new(tensor.shape, self.positions()))).collect()
    }
}

const PROJECTIONS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "out_proj"];

/// γ and β of a layer norm, each `(d, 1)`.
type Norm<D> = [Var<D>; 2];

struct Block<D: Backend> {
    /// The index of q_proj among the modules; the other projections and fc1, fc2 follow.
    first: usize,
    has_ff: bool,
    norms: Option<[Norm<D>; 2]>,
    /// `(d, seq_len)`.
    positions: Option<Var<D>>,
}

impl<D: Backend> Block<D> {
    /// Returns queries or keys of all positions with these added.
    fn at_positions(&self, graph: &Graph<D>, x: Var<D>) -> DeviceResult<Var<D>, D> {
        self.positions.as_ref().map_or_else(|| Ok(x.clone()), |positions| graph.add_to_positions(&x, positions))
    }

    /// Returns the residual stream `x` with what attention has `mixed`, and everything else the block does.
    fn after_attention(
        &self,
        graph: &Graph<D>,
        x: &Var<D>,
        mixed: &Var<D>,
        run: &mut RunModule<'_, D>,
    ) -> DeviceResult<Var<D>, D> {
        let mut x = graph.add(x, &run(self.first + 3, mixed)?)?;
        if let Some([[scale, shift], _]) = &self.norms {
            x = graph.layer_norm(&x, scale, shift)?;
        }
        if self.has_ff {
            let inner = graph.gelu(&run(self.first + 4, &x)?)?;
            x = graph.add(&x, &run(self.first + 5, &inner)?)?;
            if let Some([_, [scale, shift]]) = &self.norms {
                x = graph.layer_norm(&x, scale, shift)?;
            }
        }
        Ok(x)
    }
}

/// The model with weights on a device.
pub struct InductionHead<D: Backend> {
    config: InductionHeadConfig,
    modules: Vec<Module<D>>,
    blocks: Vec<Block<D>>,
    final_norm: Option<Norm<D>>,
}

/// Queries and keys of one block, positions included, each `(d, R)`.
pub struct QueriesAndKeys<D: Backend> {
    /// What each position looks for.
    pub queries: Var<D>,
    /// What each position is found by.
    pub keys: Var<D>,
}

impl<D: Backend> InductionHead<D> {
    /// Returns the model made of values already on the device, in the order of [`InductionHeadConfig::tensors`] and
    /// shaped as `InductionHead::constant` does.
    ///
    /// # Panics
    /// If the number of values is not that of the configuration.
    #[must_use]
    pub fn new(config: InductionHeadConfig, values: Vec<Var<D>>) -> Self {
        let tensors = config.tensors();
        assert_eq!(values.len(), tensors.len(), "tensors of an induction-head transformer");
        let find = |name: &str| {
            let at = tensors.iter().position(|tensor| tensor.name == name);
            at.map(|at| values[at].clone())
        };
        let get = |name: &str| find(name).expect("a tensor of the configuration");
        let mut modules = Vec::new();
        let linear = |name: String| {
            let (weight, bias) = (get(&format!("{name}.weight")), find(&format!("{name}.bias")));
            Module { name, layer: Linear::new(weight, bias).into() }
        };
        let norm = |name: &str| find(&format!("{name}.weight")).map(|scale| [scale, get(&format!("{name}.bias"))]);
        let table = get("token_embed.weight");
        modules.push(Module { name: "token_embed".to_owned(), layer: Layer::Embedding(Embedding { table }) });
        let mut blocks = Vec::new();
        for i in 0..config.n_layers {
            let first = modules.len();
            modules.extend(PROJECTIONS.iter().map(|name| linear(format!("blocks.{i}.attn.{name}"))));
            if config.use_ff {
                modules.extend(["fc1", "fc2"].iter().map(|name| linear(format!("blocks.{i}.ff.{name}"))));
            }
            let norms = norm(&format!("blocks.{i}.ln1")).zip(norm(&format!("blocks.{i}.ln2")));
            blocks.push(Block {
                first,
                has_ff: config.use_ff,
                norms: norms.map(|(first, second)| [first, second]),
                positions: find(&format!("blocks.{i}.attn.pos_enc.pe")),
            });
        }
        modules.push(linear("unembed".to_owned()));
        let final_norm = norm("ln_f");
        Self { config, modules, blocks, final_norm }
    }

    /// Returns the model with the weights of a state dict, as constants.
    ///
    /// # Errors
    /// [`StageError::Failed`] if a tensor is missing or has the wrong shape.
    pub fn load(config: InductionHeadConfig, device: &D, state: &Tensors) -> Result<Self, StageError> {
        let graph = Graph::detached(device);
        let mut values = Vec::new();
        for StateTensor { name, shape, role } in config.tensors() {
            let tensor = state.get(&name)?;
            if tensor.shape != shape {
                return Err(StageError::failed(format!(
                    "tensor `{name}` has shape {:?}, the model needs {shape:?}",
                    tensor.shape
                )));
            }
            let value = Self::constant(&graph, role, &shape, &tensor.data);
            values.push(value.map_err(|error| StageError::failed(format!("{error:?}")))?);
        }
        Ok(Self::new(config, values))
    }

    /// Returns a tensor of the state dict as it lies on the device: vectors are one column, positions `(d, seq_len)`.
    ///
    /// # Errors
    /// The device's.
    pub(crate) fn constant(
        graph: &Graph<D>,
        role: TensorRole,
        shape: &[usize],
        data: &[f32],
    ) -> DeviceResult<Var<D>, D> {
        if let (TensorRole::Positions, [_, length, d]) = (role, shape) {
            let by_feature = (0..*d).flat_map(|f| (0..*length).map(move |p| data[p * d + f])).collect();
            return graph.upload(by_feature, (*d, *length));
        }
        graph.upload(data.to_vec(), as_matrix(shape))
    }

    /// Returns the residual stream before the final norm, showing every block's queries and keys to `look`.
    fn residual(
        &self,
        graph: &Graph<D>,
        tokens: &Var<D>,
        run: &mut RunModule<'_, D>,
        look: &mut dyn FnMut(QueriesAndKeys<D>),
    ) -> DeviceResult<Var<D>, D> {
        let mut x = run(0, tokens)?;
        for block in &self.blocks {
            x = self.run_block(graph, block, &x, run, look)?;
        }
        Ok(x)
    }

    fn run_block(
        &self,
        graph: &Graph<D>,
        block: &Block<D>,
        x: &Var<D>,
        run: &mut RunModule<'_, D>,
        look: &mut dyn FnMut(QueriesAndKeys<D>),
    ) -> DeviceResult<Var<D>, D> {
        let [q, k, v] = [run(block.first, x)?, run(block.first + 1, x)?, run(block.first + 2, x)?];
        let (q, k) = (block.at_positions(graph, q)?, block.at_positions(graph, k)?);
        let mixed = graph.attention([&q, &k, &v], self.config.n_heads, self.config.seq_len)?;
        look(QueriesAndKeys { queries: q, keys: k });
        block.after_attention(graph, x, &mixed, run)
    }

    /// Returns [`InductionHead::residual`] at the last position of each sequence, `(d, sequences)`: of the last block
    /// nothing else is computed.
    fn last_residual(&self, graph: &Graph<D>, tokens: &Var<D>, run: &mut RunModule<'_, D>) -> DeviceResult<Var<D>, D> {
        let length = self.config.seq_len;
        let mut x = run(0, tokens)?;
        let Some((block, others)) = self.blocks.split_last() else { return graph.last_positions(&x, length) };
        for block in others {
            x = self.run_block(graph, block, &x, run, &mut |_| ())?;
        }
        let last = graph.last_positions(&x, length)?;
        let mut q = run(block.first, &last)?;
        if let Some(positions) = &block.positions {
            q = graph.add_to_positions(&q, &graph.last_positions(positions, length)?)?;
        }
        let k = block.at_positions(graph, run(block.first + 1, &x)?)?;
        let v = run(block.first + 2, &x)?;
        let mixed = graph.attention_last([&q, &k, &v], self.config.n_heads, length)?;
        block.after_attention(graph, &last, &mixed, run)
    }

    fn unembed(&self, graph: &Graph<D>, x: &Var<D>, run: &mut RunModule<'_, D>) -> DeviceResult<Var<D>, D> {
        let last = self.modules.len() - 1;
        match &self.final_norm {
            Some([scale, shift]) => run(last, &graph.layer_norm(x, scale, shift)?),
            None => run(last, x),
        }
    }

    /// Returns the logits of each sequence's last position only, `(n_tokens, sequences)`: all that training looks at.
    ///
    /// # Errors
    /// The device's.
    pub fn last_logits(&self, graph: &Graph<D>, tokens: &Var<D>) -> DeviceResult<Var<D>, D> {
        let mut run = |module: usize, x: &Var<D>| run_module(self, graph, module, x);
        let x = self.last_residual(graph, tokens, &mut run)?;
        self.unembed(graph, &x, &mut run)
    }

    /// Returns how much each position attends to each other, block by block: `[sequences, heads, seq_len, seq_len]`.
    ///
    /// # Errors
    /// The device's.
    pub fn attention_weights(&self, graph: &Graph<D>, tokens: &Var<D>) -> DeviceResult<Vec<Vec<f32>>, D> {
        let mut seen = Vec::new();
        let mut run = |module: usize, x: &Var<D>| run_module(self, graph, module, x);
        self.residual(graph, tokens, &mut run, &mut |qk| seen.push(qk))?;
        let weights = |qk: &QueriesAndKeys<D>| {
            graph.attention_weights(&qk.queries, &qk.keys, self.config.n_heads, self.config.seq_len)
        };
        seen.iter().map(weights).collect()
    }
}

impl<D: Backend> TargetModel<D> for InductionHead<D> {
    fn modules(&self) -> &[Module<D>] {
        &self.modules
    }

    fn names(&self) -> Vec<String> {
        let mut names = vec!["token_embed".to_owned(), "pos".to_owned(), "blocks".to_owned()];
        for i in 0..self.config.n_layers {
            let block = format!("blocks.{i}");
            names.push(block.clone());
            names.push(format!("{block}.attn"));
            names.extend(PROJECTIONS.iter().map(|projection| format!("{block}.attn.{projection}")));
            if self.config.use_pos_encoding {
                names.push(format!("{block}.attn.pos_enc"));
            }
            if self.config.use_ff {
                names.extend(["ff", "ff.fc1", "ff.fc2"].iter().map(|name| format!("{block}.{name}")));
            }
            if self.config.use_layer_norm {
                names.extend(["ln1", "ln2"].iter().map(|name| format!("{block}.{name}")));
            }
        }
        names.extend(self.config.use_layer_norm.then(|| "ln_f".to_owned()));
        names.push("unembed".to_owned());
        names
    }

    fn forward(&self, graph: &Graph<D>, input: &Var<D>, run: &mut RunModule<'_, D>) -> DeviceResult<Var<D>, D> {
        let x = self.residual(graph, input, run, &mut |_| ())?;
        self.unembed(graph, &x, run)
    }

    fn zero_rows_are_inert(&self) -> bool {
        // A position whose token is 0 is a position like any other.
        false
    }

    fn tied_modules(&self) -> Vec<(usize, usize)> {
        Vec::new()
    }
}
