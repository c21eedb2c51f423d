//! Sums and copies of numbers over the ranks that compute a stage together.
//!
//! A [`Collective`] is one way to make them; every rank must ask it for the same things in the same order. [`Ranks`] is
//! what the method holds: it asks nobody in a world of one, and remembers the first failure. After that its numbers
//! mean nothing, so whoever uses a result first calls [`Ranks::lost`]. The losses in the middle of a step need no
//! errors of their own that way.

mod messages;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use spdflow_engine::ranks::{RankError, World};

pub use messages::Messages;

/// Sums and copies over ranks.
pub trait Collective: Send + Sync {
    /// Returns which rank this is, from 0.
    fn rank(&self) -> usize;

    /// Returns how many ranks there are.
    fn size(&self) -> usize;

    /// Replaces each number by its sum over all ranks, taken in their order: every rank gets the same bits, always.
    ///
    /// # Errors
    /// [`RankError`] if a rank is missing.
    fn sum(&self, values: &mut [f32], numbers: &mut [f64]) -> Result<(), RankError>;

    /// Replaces each number by that of rank 0.
    ///
    /// # Errors
    /// [`RankError`] if a rank is missing.
    fn broadcast(&self, values: &mut [f32], numbers: &mut [f64]) -> Result<(), RankError>;

    /// Returns why a rank takes no part any more, if that is known by now; waits for nothing.
    fn trouble(&self) -> Option<RankError>;
}

/// Says why a rank takes no part any more, if that is known by now.
pub type Trouble<'a> = dyn Fn() -> Option<RankError> + 'a;

/// The ranks of a stage.
pub struct Ranks<'a> {
    collective: Option<Box<dyn Collective + 'a>>,
    lost: OnceLock<RankError>,
}

/// A world of one.
pub static ALONE: Ranks<'static> = Ranks { collective: None, lost: OnceLock::new() };

impl<'a> Ranks<'a> {
    /// Returns a world of one.
    #[must_use]
    pub fn alone() -> Self {
        Self { collective: None, lost: OnceLock::new() }
    }

    /// Returns ranks that sum by `collective`.
    #[must_use]
    pub fn new(collective: impl Collective + 'a) -> Self {
        Self { collective: Some(Box::new(collective)), lost: OnceLock::new() }
    }

    /// Returns the ranks of `world`, which sum by messages.
    #[must_use]
    pub fn of(world: &'a dyn World) -> Self {
        if world.size() == 1 { Self::alone() } else { Self::new(Messages::new(world)) }
    }

    /// Returns which rank this is, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.collective.as_ref().map_or(0, |collective| collective.rank())
    }

    /// Returns how many ranks there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.collective.as_ref().map_or(1, |collective| collective.size())
    }

    /// Returns whether this is the only one.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Replaces each number by its sum over all ranks.
    pub fn sum(&self, values: &mut [f32], numbers: &mut [f64]) {
        self.ask(|collective| collective.sum(values, numbers));
    }

    /// Replaces each number by that of rank 0.
    pub fn broadcast(&self, values: &mut [f32], numbers: &mut [f64]) {
        self.ask(|collective| collective.broadcast(values, numbers));
    }

    /// Does what devices do together by themselves; `act` is given a way to ask whether a rank is missing, which it does
    /// while it waits for others.
    pub fn among_devices(&self, act: impl FnOnce(&Trouble<'_>) -> Result<(), RankError>) {
        self.ask(|collective| act(&|| collective.trouble()));
    }

    /// Returns why the numbers since then mean nothing, if a rank was missing.
    #[must_use]
    pub fn lost(&self) -> Option<&RankError> {
        self.lost.get()
    }

    fn ask(&self, question: impl FnOnce(&dyn Collective) -> Result<(), RankError>) {
        if self.is_alone() || self.lost.get().is_some() {
            return;
        }
        if let Some(Err(error)) = self.collective.as_deref().map(question) {
            // Nobody else asks at the same time: ranks ask in one order.
            let _ = self.lost.set(error);
        }
    }
}
