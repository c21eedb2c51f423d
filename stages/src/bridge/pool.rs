//! Buffers that are used again: a step reads the same few dozen sizes every time.
//!
//! A matrix's memory goes back to its thread's pool when the last user drops it, and the next one of that length takes
//! it without clearing it first. Clearing and faulting in fresh memory cost as much as the copy itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

/// How much memory a thread keeps for later, in numbers (128 MiB).
const KEEP: usize = 32 << 20;

#[derive(Default)]
struct Pool {
    by_length: BTreeMap<usize, Vec<Vec<f32>>>,
    kept: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// A buffer that returns to the pool of the thread that drops it.
#[derive(Debug)]
pub struct Pooled(Vec<f32>);

impl Pooled {
    /// Returns a buffer of `length` numbers that `fill` must overwrite entirely: it starts with arbitrary contents.
    pub fn filled_by(length: usize, fill: impl FnOnce(&mut [f32])) -> Self {
        let used = POOL.with_borrow_mut(|pool| {
            let buffer = pool.by_length.get_mut(&length).and_then(Vec::pop)?;
            pool.kept -= length;
            Some(buffer)
        });
        let mut buffer = used.unwrap_or_else(|| vec![0.0; length]);
        fill(&mut buffer);
        Self(buffer)
    }

    /// Returns a buffer of `length` zeros.
    pub fn zeros(length: usize) -> Self {
        Self::filled_by(length, spdflow_kernels::memory::clear)
    }

    /// Takes the buffer out of the pool's care.
    pub fn into_vec(mut self) -> Vec<f32> {
        std::mem::take(&mut self.0)
    }
}

impl From<Vec<f32>> for Pooled {
    fn from(buffer: Vec<f32>) -> Self {
        Self(buffer)
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Deref for Pooled {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that is ending has no pool any more; then the buffer is simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if !buffer.is_empty() && pool.kept + buffer.len() <= KEEP {
                pool.kept += buffer.len();
                pool.by_length.entry(buffer.len()).or_default().push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_for_its_length_only() {
        let first = Pooled::filled_by(1003, |buffer| buffer.fill(1.0));
        let address = first.as_ptr();
        drop(first);
        let other = Pooled::filled_by(1004, |buffer| buffer.fill(2.0));
        let again = Pooled::filled_by(1003, |buffer| buffer.fill(3.0));
        assert_eq!((again.as_ptr(), again[0], other[0]), (address, 3.0, 2.0));
    }
}
