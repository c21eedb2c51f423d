//! Splits work among threads by output.
//!
//! A task owns whole rows of the output (one feature, one component), so nothing is summed across tasks and the
//! number of threads cannot change a bit. Small work stays on the calling thread: waking a second one costs more.

use std::cell::Cell;

use rayon::prelude::*;

/// Work below this many elementary operations is not worth a second thread (about 20 µs).
const WORTH_SHARING: usize = 200_000;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Returns what `task` returns; the kernels it calls keep to this thread. For tasks that run side by side themselves.
pub fn on_this_thread<R>(task: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    task()
}

/// Returns whether other threads may help with work of `operations` elementary operations and are worth waking.
pub(crate) fn is_worth_sharing(operations: usize) -> bool {
    operations >= WORTH_SHARING && !ALONE.get()
}

/// Calls `task(i, piece)` for the `i`-th piece of `width` elements of `output`.
pub(crate) fn for_each_row<F>(output: &mut [f32], width: usize, operations: usize, task: F)
where
    F: Fn(usize, &mut [f32]) + Sync + Send,
{
    if width == 0 {
        return;
    }
    if !is_worth_sharing(operations) {
        output.chunks_mut(width).enumerate().for_each(|(index, piece)| task(index, piece));
    } else {
        output.par_chunks_mut(width).enumerate().for_each(|(index, piece)| task(index, piece));
    }
}

/// Splits `array` `[n, rows]` into blocks of `width` columns, the last perhaps narrower; of each block the `n` rows.
pub(crate) fn columns(array: &mut [f32], rows: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    let features = array.len() / rows.max(1);
    let mut blocks: Vec<Vec<&mut [f32]>> = (0..rows.div_ceil(width)).map(|_| Vec::with_capacity(features)).collect();
    for row in array.chunks_mut(rows.max(1)) {
        for (block, piece) in blocks.iter_mut().zip(row.chunks_mut(width)) {
            block.push(piece);
        }
    }
    blocks
}

/// Calls `task` for every item, in parallel when there is enough to do.
pub(crate) fn for_each<T: Send, F: Fn(T) + Sync + Send>(items: Vec<T>, operations: usize, task: F) {
    for_each_with(items, operations, || (), |(), item| task(item));
}

/// As [`for_each`], with something that `task` works with: made once for each piece of work that stays on a thread.
pub(crate) fn for_each_with<T: Send, W, F: Fn(&mut W, T) + Sync + Send>(
    items: Vec<T>,
    operations: usize,
    make: impl Fn() -> W + Sync + Send,
    task: F,
) {
    if !is_worth_sharing(operations) {
        let mut with = make();
        items.into_iter().for_each(|item| task(&mut with, item));
    } else {
        items.into_par_iter().for_each_init(make, task);
    }
}
