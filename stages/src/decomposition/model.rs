//! A target model with its sites replaced by components (spec sections 2.2 and 2.3).
//!
//! A step first runs the plain target once ([`ComponentModel::clean_pass`]) and remembers what went in and out of every
//! module. Each masked pass then recomputes only what differs: up to the first masked site the values of the clean
//! pass are reused, and where a masked site reads a clean input, so are its component activations and its product
//! with the target's weight.

use spdflow_kernels::philox::normal;

use super::causal_importance::{CausalImportance, Importance, NetworkInput, SigmoidType};
use super::site::SitePlan;
use crate::bridge::{Backend, DeviceResult, Graph, MaskInput, MaskSource, SiteInputs, Var};
use crate::models::{LayerKind, TargetModel};
use crate::optimizer::parameters::Parameters;
use crate::purpose::Purpose;

/// A matrix that is decomposed.
pub struct Site<D: Backend> {
    /// Its name and place.
    pub plan: SitePlan,
    /// Whether it is a linear map, as inserted identities are, or an embedding.
    pub kind: LayerKind,
    /// The target's weight `(d_out, d_in)`; the identity for an inserted one. An embedding's inputs are its vocabulary.
    pub weight: Var<D>,
    /// The target's bias `(d_out, 1)`, neither decomposed nor trained.
    pub bias: Option<Var<D>>,
    /// Index of V among the parameters; U follows.
    v: usize,
    /// Indices of the causal-importance network's tensors among the parameters.
    network: std::ops::Range<usize>,
}

impl<D: Backend> Site<D> {
    /// Returns `(d_out, d_in)`.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        self.weight.shape()
    }
}

/// A target model and its components.
pub struct ComponentModel<D: Backend> {
    target: Box<dyn TargetModel<D>>,
    sites: Vec<Site<D>>,
    importance: CausalImportance,
    sigmoid: SigmoidType,
    /// Parameters before this index are components, those from it on are causal-importance networks.
    first_network: usize,
}

/// The parameters of one step as leaves of its graph.
pub struct Leaves<D: Backend>(pub Vec<Var<D>>);

/// What went in and out of one module when the plain target ran.
#[derive(Clone)]
struct CleanModule<D: Backend> {
    /// What reached the module, before an inserted identity (which changes nothing).
    input: Var<D>,
    /// `W x`, without the bias.
    product: Var<D>,
    /// `W x + b`.
    output: Var<D>,
}

/// The plain target's run on a batch.
pub struct CleanPass<D: Backend> {
    /// The model's input.
    pub input: Var<D>,
    /// The model's output.
    pub output: Var<D>,
    modules: Vec<CleanModule<D>>,
    /// `Vᵀ x` of every site on its clean input.
    activations: Vec<Var<D>>,
}

impl<D: Backend> CleanPass<D> {
    /// Returns the same pass with nothing traced, on `graph`.
    #[must_use]
    pub fn detached(&self, graph: &Graph<D>) -> Self {
        Self {
            input: self.input.clone(),
            output: self.output.clone(),
            modules: self.modules.clone(),
            activations: self.activations.iter().map(|activations| graph.detach(activations)).collect(),
        }
    }
}

/// How one site is masked in a pass.
pub struct SiteMask<D: Backend> {
    /// The components' mask.
    pub mask: ComponentMask<D>,
    /// The delta component's mask `(1, R)`; absent when there is none.
    pub delta: Option<Var<D>>,
    /// 1 where a position goes through the components, `(1, R)`; all when absent.
    pub routing: Option<Var<D>>,
}

impl<D: Backend> Clone for SiteMask<D> {
    fn clone(&self) -> Self {
        Self { mask: self.mask.clone(), delta: self.delta.clone(), routing: self.routing.clone() }
    }
}

/// The mask of a site's components.
pub enum ComponentMask<D: Backend> {
    /// All on.
    Ones,
    /// One mask for all rows, `(C, 1)`.
    PerComponent(Var<D>),
    /// `(C, R)`.
    Full(Var<D>),
    /// Between the lower causal importances `(C, R)` and one.
    Between(Var<D>, MaskSource<D>),
}

impl<D: Backend> Clone for ComponentMask<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Ones => Self::Ones,
            Self::PerComponent(mask) => Self::PerComponent(mask.clone()),
            Self::Full(mask) => Self::Full(mask.clone()),
            Self::Between(importance, source) => Self::Between(importance.clone(), source.clone()),
        }
    }
}

/// The result of a masked pass.
pub struct MaskedPass<D: Backend> {
    /// The model's output.
    pub output: Var<D>,
    /// What each site read, `None` for sites that were not masked.
    pub site_inputs: Vec<Option<Var<D>>>,
}

impl<D: Backend> ComponentModel<D> {
    /// Returns the model with freshly drawn components and networks, and their parameters.
    ///
    /// V ~ N(0, 1/√d_in) (an embedding's d_in is its vocabulary), U ~ N(0, 1/√C), networks as their kind says (spec sections 2.1 and 3.1). With `tie`, the
    /// components of modules whose weights are tied share storage (spec 2.6).
    ///
    /// # Errors
    /// The device's.
    pub fn new(
        device: &D,
        target: Box<dyn TargetModel<D>>,
        plans: Vec<SitePlan>,
        importance: CausalImportance,
        sigmoid: SigmoidType,
        seed: u64,
        tie: bool,
    ) -> DeviceResult<(Self, Parameters<D>), D> {
        let mut parameters = Parameters::new(device);
        let mut stream_index = 0;
        let mut draw = |std: f64, n: usize| {
            let mut out = vec![0.0; n];
            if std > 0.0 {
                normal(Purpose::ComponentInit.stream(seed, 0, stream_index), &mut out);
                out.iter_mut().for_each(|x| *x = (f64::from(*x) * std) as f32);
            }
            stream_index += 1;
            out
        };
        let graph = Graph::detached(device);
        let mut sites = Vec::new();
        for plan in plans {
            let layer = &target.modules()[plan.module].layer;
            let (d_out, d_in) = layer.shape();
            let (kind, weight, bias) = if plan.identity {
                (LayerKind::Linear, identity(&graph, d_in)?, None)
            } else {
                (layer.kind(), layer.matrix(&graph)?, layer.bias().cloned())
            };
            let (d_out, c) = (if plan.identity { d_in } else { d_out }, plan.components);
            let key = component_key(&plan.name);
            let v = parameters.push(
                format!("{key}.V"),
                vec![d_in, c],
                (d_in, c),
                draw(1.0 / (d_in as f64).sqrt(), d_in * c),
            )?;
            parameters.push(
                format!("{key}.U"),
                vec![c, d_out],
                (c, d_out),
                draw(1.0 / (c as f64).sqrt(), c * d_out),
            )?;
            sites.push(Site { plan, kind, weight, bias, v, network: 0..0 });
        }
        let first_network = parameters.len();
        for site in &mut sites {
            let start = parameters.len();
            let d_in = site.weight.shape().1;
            for tensor in importance.tensors(d_in, site.plan.components) {
                let n = tensor.shape.iter().product();
                let name = format!("{}.{}", network_key(&site.plan.name), tensor.key);
                parameters.push(name, tensor.shape, tensor.matrix, draw(tensor.init_std, n))?;
            }
            site.network = start..parameters.len();
        }
        if tie {
            for (first, second) in target.tied_modules() {
                let find = |module: usize| sites.iter().find(|site| site.plan.module == module && !site.plan.identity);
                if let (Some(first), Some(second)) = (find(first), find(second)) {
                    // The second's V is the first's Uᵀ, and its U the first's Vᵀ.
                    parameters.tie(first.v + 1, second.v)?;
                    parameters.tie(first.v, second.v + 1)?;
                }
            }
        }
        Ok((Self { target, sites, importance, sigmoid, first_network }, parameters))
    }

    /// Returns the sites in canonical order.
    #[must_use]
    pub fn sites(&self) -> &[Site<D>] {
        &self.sites
    }

    /// Returns the target model.
    #[must_use]
    pub fn target(&self) -> &dyn TargetModel<D> {
        &*self.target
    }

    /// Returns the indices of the component parameters and those of the networks.
    #[must_use]
    pub fn parameter_groups(&self, parameters: &Parameters<D>) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        (0..self.first_network, self.first_network..parameters.len())
    }

    /// Returns site `s`'s V `(d_in, C)` and U `(C, d_out)`.
    #[must_use]
    pub fn components<'a>(&self, leaves: &'a Leaves<D>, s: usize) -> (&'a Var<D>, &'a Var<D>) {
        (&leaves.0[self.sites[s].v], &leaves.0[self.sites[s].v + 1])
    }

    /// Runs the plain target on `input` `(features, R)`, and every site's V on what reaches it.
    ///
    /// # Errors
    /// The device's.
    pub fn clean_pass(&self, graph: &Graph<D>, leaves: &Leaves<D>, input: &Var<D>) -> DeviceResult<CleanPass<D>, D> {
        let mut modules: Vec<Option<CleanModule<D>>> = self.target.modules().iter().map(|_| None).collect();
        let output = self.target.forward(graph, input, &mut |module, x| {
            let layer = &self.target.modules()[module].layer;
            let product = layer.product(graph, x)?;
            let output = layer.finish(graph, &product)?;
            modules[module] = Some(CleanModule { input: x.clone(), product, output: output.clone() });
            Ok(output)
        })?;
        let modules: Vec<CleanModule<D>> =
            modules.into_iter().map(|module| module.expect("a forward pass runs every module")).collect();
        let mut activations = Vec::new();
        for (s, site) in self.sites.iter().enumerate() {
            let v = self.components(leaves, s).0;
            activations.push(site.kind.activations(graph, v, &modules[site.plan.module].input)?);
        }
        Ok(CleanPass { input: input.clone(), output, modules, activations })
    }

    /// Returns the causal importances of every site; `noise` is given under binomial sampling.
    ///
    /// # Errors
    /// The device's.
    pub fn importances(
        &self,
        graph: &Graph<D>,
        leaves: &Leaves<D>,
        clean: &CleanPass<D>,
        noise: Option<&[Var<D>]>,
    ) -> DeviceResult<Vec<Importance<D>>, D> {
        let mut importances = Vec::new();
        for (s, site) in self.sites.iter().enumerate() {
            let input =
                NetworkInput { input: &clean.modules[site.plan.module].input, activations: &clean.activations[s] };
            let logits = self.importance.logits(graph, &input, &leaves.0[site.network.clone()])?;
            importances.push(Importance::new(graph, self.sigmoid, logits, noise.map(|noise| &noise[s]))?);
        }
        Ok(importances)
    }

    /// Runs the target with site `s` replaced by its components wherever `masks[s]` is given.
    ///
    /// # Errors
    /// The device's.
    pub fn masked_pass(
        &self,
        graph: &Graph<D>,
        leaves: &Leaves<D>,
        clean: &CleanPass<D>,
        masks: &[Option<SiteMask<D>>],
    ) -> DeviceResult<MaskedPass<D>, D> {
        assert_eq!(masks.len(), self.sites.len(), "one mask entry for each site");
        let mut site_inputs: Vec<Option<Var<D>>> = vec![None; self.sites.len()];
        let output = self.target.forward(graph, &clean.input, &mut |module, x| {
            let here = |identity: bool| {
                (0..self.sites.len()).find(|s| {
                    masks[*s].is_some()
                        && self.sites[*s].plan.module == module
                        && self.sites[*s].plan.identity == identity
                })
            };
            let mut x = x.clone();
            if let Some(s) = here(true) {
                site_inputs[s] = Some(x.clone());
                x = self.run_site(graph, leaves, clean, s, &x, masks[s].as_ref())?;
            }
            if let Some(s) = here(false) {
                site_inputs[s] = Some(x.clone());
                return self.run_site(graph, leaves, clean, s, &x, masks[s].as_ref());
            }
            if x.is_same(&clean.modules[module].input) {
                return Ok(clean.modules[module].output.clone());
            }
            let layer = &self.target.modules()[module].layer;
            layer.finish(graph, &layer.product(graph, &x)?)
        })?;
        Ok(MaskedPass { output, site_inputs })
    }

    fn run_site(
        &self,
        graph: &Graph<D>,
        leaves: &Leaves<D>,
        clean: &CleanPass<D>,
        s: usize,
        x: &Var<D>,
        mask: Option<&SiteMask<D>>,
    ) -> DeviceResult<Var<D>, D> {
        let (site, mask) = (&self.sites[s], mask.expect("called for masked sites only"));
        let (v, u) = self.components(leaves, s);
        let module = &clean.modules[site.plan.module];
        let is_clean = x.is_same(&module.input);
        let activations = if is_clean { clean.activations[s].clone() } else { site.kind.activations(graph, v, x)? };
        let frozen = match (mask.delta.is_some() || mask.routing.is_some(), site.plan.identity, is_clean) {
            (false, ..) => None,
            (true, true, _) => Some(x.clone()),
            (true, false, true) => Some(module.product.clone()),
            (true, false, false) => Some(self.target.modules()[site.plan.module].layer.product(graph, x)?),
        };
        let mask_input = match &mask.mask {
            ComponentMask::Ones => MaskInput::Ones,
            ComponentMask::PerComponent(mask) => MaskInput::PerComponent(mask),
            ComponentMask::Full(mask) => MaskInput::Full(mask),
            ComponentMask::Between(importance, source) => MaskInput::Between { importance, source },
        };
        let (activations, u) = (graph.operand(&activations)?, graph.operand(u)?);
        let mut inputs = SiteInputs {
            activations: &activations,
            mask: mask_input,
            u: &u,
            frozen: None,
            delta_mask: mask.delta.as_ref(),
            routing: mask.routing.as_ref(),
            bias: site.bias.as_ref(),
        };
        if self.target.modules()[site.plan.module].layer.is_factored() && !site.plan.identity {
            // Nobody needs the output itself: U waits to be multiplied by the matrices that read it.
            let components = graph.factored(&u, &graph.masked_activations(&inputs)?)?;
            let Some(frozen) = frozen else { return Ok(components) };
            let share = frozen_share(graph, mask)?;
            return match graph.with_factors(&frozen, |factor| graph.scale_rows(factor, &share))? {
                Some(frozen) => graph.add(&components, &frozen),
                None => graph.add(&components, &graph.scale_rows(&frozen, &share)?),
            };
        }
        let frozen = frozen.map(|frozen| graph.operand(&graph.dense(&frozen)?)).transpose()?;
        inputs.frozen = frozen.as_ref();
        graph.masked_site(&inputs)
    }

    /// Returns what reached site `s` in the clean pass, `(d_in, R)`, or the tokens `(1, R)` if it is an embedding.
    #[must_use]
    pub fn clean_input<'a>(&self, clean: &'a CleanPass<D>, s: usize) -> &'a Var<D> {
        &clean.modules[self.sites[s].plan.module].input
    }
}

/// Returns how much of each row's output is the frozen product, `(1, R)`: the delta component's mask, and all of it
/// where the row is routed to the target.
fn frozen_share<D: Backend>(graph: &Graph<D>, mask: &SiteMask<D>) -> DeviceResult<Var<D>, D> {
    match (&mask.delta, &mask.routing) {
        (Some(delta), None) => Ok(delta.clone()),
        (delta, Some(routing)) => {
            let rest: Vec<f32> = routing.to_vec().iter().map(|route| 1.0 - route).collect();
            let rest = graph.upload(rest, routing.shape())?;
            match delta {
                None => Ok(rest),
                Some(delta) => graph.add(&rest, &graph.scale_rows(delta, routing)?),
            }
        }
        (None, None) => unreachable!("a frozen product is there for a delta component or a routing"),
    }
}

fn identity<D: Backend>(graph: &Graph<D>, d: usize) -> DeviceResult<Var<D>, D> {
    let mut data = vec![0.0; d * d];
    data.iter_mut().step_by(d + 1).for_each(|x| *x = 1.0);
    graph.upload(data, (d, d))
}

/// Returns the state-dict prefix of a site's components (spec section 2.7).
#[must_use]
pub fn component_key(site: &str) -> String {
    format!("_components.{}", site.replace('.', "-"))
}

/// Returns the state-dict prefix of a site's causal-importance network.
#[must_use]
pub fn network_key(site: &str) -> String {
    format!("_ci_fns.{}", site.replace('.', "-"))
}
