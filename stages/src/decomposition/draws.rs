//! Every random number a step uses, by name.
//!
//! Losses ask for draws through [`Draws`], saying what they are for; they never make any. Training answers from
//! counter-based streams ([`StreamDraws`]); tests replay recorded ones. So every stochastic loss has an explicit form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_kernels::philox::Stream;

use super::routing::{Routing, route};
use crate::bridge::{Backend, DeviceResult, Graph, MaskSource, Var};
use crate::data::Batch;
use crate::purpose::Purpose;

/// How the sources of stochastic masks are distributed (spec section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Uniform in [0, 1).
    #[default]
    Continuous,
    /// 0 or 1 with equal probability; causal importances get noise.
    Binomial,
}

/// Which draw of which loss.
#[derive(Debug, Clone, Copy)]
pub struct DrawKey<'a> {
    /// The loss's position in the configuration.
    pub loss: usize,
    /// The loss's name in the reference: `StochasticReconLoss`.
    pub class: &'a str,
    /// The mask sample, from 0.
    pub sample: usize,
    /// For an attack on one site at a time: that site's index.
    pub layer: Option<usize>,
}

/// A source of draws for one step. All results are constants.
pub trait Draws<D: Backend> {
    /// Returns the mask source of site `site`, for `components` components and every row.
    ///
    /// # Errors
    /// The device's.
    fn source(
        &mut self,
        graph: &Graph<D>,
        key: DrawKey<'_>,
        site: usize,
        components: usize,
        sampling: Sampling,
    ) -> DeviceResult<MaskSource<D>, D>;

    /// Returns the delta component's mask of site `site`, `(1, R)`.
    ///
    /// # Errors
    /// The device's.
    fn delta(&mut self, graph: &Graph<D>, key: DrawKey<'_>, site: usize) -> DeviceResult<Var<D>, D>;

    /// Returns for each of `sites` sites where positions go through its components, `(1, R)`; `None` for everywhere.
    ///
    /// # Errors
    /// The device's.
    fn routing(
        &mut self,
        graph: &Graph<D>,
        key: DrawKey<'_>,
        routing: Routing,
        sites: usize,
    ) -> DeviceResult<Vec<Option<Var<D>>>, D>;

    /// Returns an adversary's random start for site `site`, `(channels, R)`, or `(channels, 1)` if shared by the batch.
    ///
    /// # Errors
    /// The device's.
    fn adversary(
        &mut self,
        graph: &Graph<D>,
        key: DrawKey<'_>,
        site: usize,
        channels: usize,
        shared: bool,
    ) -> DeviceResult<Var<D>, D>;

    /// Returns the noise on site `site`'s causal importances under binomial sampling, `(components, R)`.
    ///
    /// # Errors
    /// The device's.
    fn importance_noise(&mut self, graph: &Graph<D>, site: usize, components: usize) -> DeviceResult<Var<D>, D>;
}

/// Draws from counter-based streams keyed by seed, purpose, step and place.
pub struct StreamDraws<'a> {
    /// The decomposition's seed.
    pub seed: u64,
    /// The training step, or the running number of the evaluation batch.
    pub step: u32,
    /// Whether this is an evaluation, which has streams of its own.
    pub evaluation: bool,
    /// The number of each row in the whole batch.
    pub rows: &'a [u32],
}

/// Returns what makes the draws of a training step for a part of its batch.
pub fn training_draws<D: Backend>(seed: u64, step: u32) -> impl Fn(&Batch) -> Box<dyn Draws<D> + '_> + Sync {
    move |part| Box::new(StreamDraws { seed, step, evaluation: false, rows: &part.rows })
}

impl StreamDraws<'_> {
    fn uniform<D: Backend>(
        &self,
        graph: &Graph<D>,
        purpose: Purpose,
        index: u32,
        features: usize,
        rows: &[u32],
    ) -> DeviceResult<Var<D>, D> {
        graph.uniform(self.stream(purpose, index), features, rows)
    }

    fn stream(&self, purpose: Purpose, index: u32) -> Stream {
        let mut stream = purpose.stream(self.seed, self.step, index);
        if self.evaluation {
            stream.purpose += Purpose::EvaluationOffset as u32;
        }
        stream
    }
}

/// Packs the place of a draw into 32 bits: 8 for the loss, 8 for the sample, 16 for the site.
fn place(key: DrawKey<'_>, site: usize) -> u32 {
    assert!(
        key.loss < 256 && key.sample < 256 && site < 65_536,
        "draw {key:?} of site {site} has no stream of its own"
    );
    (key.loss as u32) << 24 | (key.sample as u32) << 16 | site as u32
}

impl<D: Backend> Draws<D> for StreamDraws<'_> {
    fn source(
        &mut self,
        graph: &Graph<D>,
        key: DrawKey<'_>,
        site: usize,
        components: usize,
        sampling: Sampling,
    ) -> DeviceResult<MaskSource<D>, D> {
        let stream = self.stream(Purpose::Source, place(key, site));
        match sampling {
            Sampling::Continuous => Ok(MaskSource::Drawn { stream, rows: self.rows.into() }),
            Sampling::Binomial => {
                let uniform = graph.uniform(stream, components, self.rows)?;
                let coins = uniform.to_vec().iter().map(|u| if *u < 0.5 { 0.0 } else { 1.0 }).collect();
                Ok(MaskSource::Given(graph.upload(coins, uniform.shape())?))
            }
        }
    }

    fn delta(&mut self, graph: &Graph<D>, key: DrawKey<'_>, site: usize) -> DeviceResult<Var<D>, D> {
        self.uniform(graph, Purpose::DeltaMask, place(key, site), 1, self.rows)
    }

    fn routing(
        &mut self,
        graph: &Graph<D>,
        key: DrawKey<'_>,
        routing: Routing,
        sites: usize,
    ) -> DeviceResult<Vec<Option<Var<D>>>, D> {
        // Feature 0 decides how many sites, features 1.. which ones.
        let uniform = self.uniform(graph, Purpose::Routing, place(key, 0), sites + 1, self.rows)?.to_vec();
        let (count, noise) = uniform.split_at(self.rows.len());
        route(routing, count, noise, sites)
            .into_iter()
            .map(|row| Ok(Some(graph.upload(row, (1, count.len()))?)))
            .collect()
    }

    fn adversary(
        &mut self,
        graph: &Graph<D>,
        key: DrawKey<'_>,
        site: usize,
        channels: usize,
        shared: bool,
    ) -> DeviceResult<Var<D>, D> {
        // An attack on one site draws sources for all; the attacked site takes the place of the sample.
        let key = DrawKey { sample: key.layer.map_or(key.sample, |layer| layer + 1), ..key };
        let rows = if shared { &[0][..] } else { self.rows };
        self.uniform(graph, Purpose::Adversary, place(key, site), channels, rows)
    }

    fn importance_noise(&mut self, graph: &Graph<D>, site: usize, components: usize) -> DeviceResult<Var<D>, D> {
        let key = DrawKey { loss: 0, class: "", sample: 0, layer: None };
        self.uniform(graph, Purpose::ImportanceNoise, place(key, site), components, self.rows)
    }
}
