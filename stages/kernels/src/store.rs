//! What becomes of the numbers that a result's memory already holds.

/// Whether a kernel overwrites its result's memory or adds to it.
///
/// A gradient's first contribution is written, all others are added: nobody clears memory that is written anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Every element is overwritten, whatever it held.
    Write,
    /// Every element grows by what the kernel computed.
    Add,
}

impl Store {
    /// Returns what an element becomes: `value`, or `held + value`.
    #[must_use]
    #[inline(always)]
    pub fn merge(self, held: f32, value: f32) -> f32 {
        match self {
            Self::Write => value,
            Self::Add => held + value,
        }
    }

    /// Makes `memory` what nothing at all adds up to: zeros where it is to be written.
    pub fn nothing(self, memory: &mut [f32]) {
        if self == Self::Write {
            crate::memory::clear(memory);
        }
    }
}
