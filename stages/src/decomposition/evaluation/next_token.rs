//! What the metrics of token models share: masked logits against the target's, and against the next tokens (spec
//! sections 5.7 and 5.8).

use super::super::loss::Masks;
use super::super::model::{ComponentMask, SiteMask};
use super::super::step::Step;
use crate::bridge::{Backend, DeviceResult, Var};

/// One batch of tokens, ready to be predicted.
pub(super) struct NextTokens<'s, 'g, D: Backend> {
    step: &'s Step<'g, D>,
    /// The token after each position, negative at the last position of a sequence.
    labels: Var<D>,
    /// How many positions have a next token.
    count: usize,
}

/// How far logits are from the target's and from the next tokens, means in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prediction {
    /// `KL(target ‖ masked)` over all positions.
    pub kl: f64,
    /// Cross entropy over all positions with a next token.
    pub ce: f64,
}

impl<'s, 'g, D: Backend> NextTokens<'s, 'g, D> {
    /// Returns the batch of `step`, whose rows are the positions of whole sequences.
    ///
    /// # Panics
    /// If the rows are vectors: [`super::Fit`] refuses these metrics for targets that read them.
    pub(super) fn new(step: &'s Step<'g, D>) -> DeviceResult<Self, D> {
        let (tokens, length) = (step.clean.input.to_vec(), step.sequence_length);
        assert!(length > 1, "sequences of {length} have no next tokens");
        let label = |row: usize| if (row + 1).is_multiple_of(length) { -1.0 } else { tokens[row + 1] };
        let labels: Vec<f32> = (0..tokens.len()).map(label).collect();
        let count = labels.iter().filter(|label| **label >= 0.0).count();
        let shape = (1, labels.len());
        Ok(Self { step, labels: step.graph.upload(labels, shape)?, count })
    }

    /// Returns the cross entropy of `logits`.
    pub(super) fn cross_entropy(&self, logits: &Var<D>) -> DeviceResult<f64, D> {
        Ok(self.step.graph.cross_entropy(logits, &self.labels)?.scalar() / self.count as f64)
    }

    /// Returns the cross entropy of the plain target.
    pub(super) fn of_target(&self) -> DeviceResult<f64, D> {
        self.cross_entropy(&self.step.clean.output)
    }

    /// Returns the predictions with these masks.
    pub(super) fn with(&self, masks: &Masks<D>) -> DeviceResult<Prediction, D> {
        let step = self.step;
        let output = step.model.masked_pass(step.graph, step.leaves, &step.clean, masks)?.output;
        let kl = step.graph.kl_divergence(&output, &step.clean.output)?.scalar() / step.positions as f64;
        Ok(Prediction { kl, ce: self.cross_entropy(&output)? })
    }

    /// Returns the predictions with every component of every site off.
    pub(super) fn with_nothing(&self) -> DeviceResult<Prediction, D> {
        let masks = self.step.importances.iter().map(|importance| {
            let components = importance.lower.shape().0;
            let zeros = self.step.graph.upload(vec![0.0; components], (components, 1))?;
            Ok(Some(SiteMask { mask: ComponentMask::PerComponent(zeros), delta: None, routing: None }))
        });
        self.with(&masks.collect::<Result<_, D::Err>>()?)
    }
}
