//! Splits work among threads by output.
//!
//! A task owns whole rows of the output (one feature, one component), so nothing is summed across tasks and the
//! number of threads cannot change a bit. Small work stays on the calling thread: waking a second one costs more.

use rayon::prelude::*;

/// Work below this many elementary operations is not worth a second thread (about 20 µs).
const WORTH_SHARING: usize = 200_000;

/// Calls `task(i, piece)` for the `i`-th piece of `width` elements of `output`.
pub(crate) fn for_each_row<F>(output: &mut [f32], width: usize, operations: usize, task: F)
where
    F: Fn(usize, &mut [f32]) + Sync + Send,
{
    if width == 0 {
        return;
    }
    if operations < WORTH_SHARING {
        output.chunks_mut(width).enumerate().for_each(|(index, piece)| task(index, piece));
    } else {
        output.par_chunks_mut(width).enumerate().for_each(|(index, piece)| task(index, piece));
    }
}

/// Calls `task` for every item, in parallel when there is enough to do.
pub(crate) fn for_each<T: Send, F: Fn(T) + Sync + Send>(items: Vec<T>, operations: usize, task: F) {
    if operations < WORTH_SHARING {
        items.into_iter().for_each(task);
    } else {
        items.into_par_iter().for_each(task);
    }
}
