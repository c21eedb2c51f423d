//! Buffers that are used again: a step reads the same few dozen sizes every time.
//!
//! A matrix's memory goes back to its thread's pool when the last user drops it, and the next one of about that length
//! takes it without clearing it first. Clearing and faulting in fresh memory cost as much as the copy itself.
//!
//! Lengths differ a little from step to step, since batches leave out rows that are zero: buffers are as long as the
//! largest of their [class](class_of), so that one serves the next step too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

/// How much memory a thread keeps for later, in numbers (128 MiB).
const KEEP: usize = 32 << 20;

#[derive(Default)]
struct Pool {
    by_class: BTreeMap<usize, Vec<Vec<f32>>>,
    kept: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Returns the length of the buffers that serve `length`: at most an eighth longer.
fn class_of(length: usize) -> usize {
    let eighth = (length.next_power_of_two() / 16).max(1);
    length.next_multiple_of(eighth)
}

/// A buffer that returns to the pool of the thread that drops it.
#[derive(Debug)]
pub struct Pooled(Vec<f32>);

impl Pooled {
    /// Returns a buffer of `length` numbers that `fill` must overwrite entirely: it starts with arbitrary contents.
    pub fn filled_by(length: usize, fill: impl FnOnce(&mut [f32])) -> Self {
        let class = class_of(length);
        let used = POOL.with_borrow_mut(|pool| {
            let buffer = pool.by_class.get_mut(&class).and_then(Vec::pop)?;
            pool.kept -= class;
            Some(buffer)
        });
        let mut buffer = used.unwrap_or_else(|| Vec::with_capacity(class));
        // Cuts it, or clears what is missing.
        buffer.resize(length, 0.0);
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
            let class = class_of(buffer.len());
            // Only buffers that can hold every length of their class.
            if !buffer.is_empty() && buffer.capacity() >= class && pool.kept + class <= KEEP {
                pool.kept += class;
                pool.by_class.entry(class).or_default().push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again_for_lengths_of_its_class_only() {
        let first = Pooled::filled_by(1003, |buffer| buffer.fill(1.0));
        let address = first.as_ptr();
        drop(first);
        let other = Pooled::filled_by(1200, |buffer| buffer.fill(2.0));
        let again = Pooled::filled_by(1005, |buffer| buffer.fill(3.0));
        assert_eq!((again.as_ptr(), again.len(), again[1004], other[0]), (address, 1005, 3.0, 2.0));
    }

    #[test]
    fn a_class_is_at_most_an_eighth_longer_than_what_it_serves() {
        for length in (1..5000).chain([1 << 20, (1 << 20) + 1]) {
            let class = class_of(length);
            assert!(class >= length && class <= length + length / 8 + 1, "{length}: {class}");
            assert_eq!(class_of(class), class);
        }
    }
}
