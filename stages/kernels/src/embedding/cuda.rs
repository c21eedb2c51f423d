//! Launches of `embedding.cu`.
//!
//! Tokens stay on the device, so that nobody can refuse one that is not in the table: its features become NaN, which the
//! loss shows, and it gets no gradient.

use cudarc::driver::LaunchAsync;

use super::checked;
use crate::cuda::{Launched, Memory, Module, function, grid, length, memory, narrow};

pub(crate) const MODULE: Module = Module {
    name: "embedding",
    needs: &[],
    text: include_str!("embedding.cu"),
    kernels: &["embedding_forward", "embedding_backward", "embedding_sum"],
};

/// Rows and features of a tile.
const SIDE: u32 = 32;

/// Rows that a block looks through at a time (`SPAN` there).
const SPAN: u32 = 2048;

/// Blocks that fill a large device.
const ENOUGH_BLOCKS: u32 = 1024;

/// As [`super::forward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn forward(table: &Memory, tokens: &Memory, out: &mut Memory, d: usize) -> Launched {
    let rows = length(tokens);
    let vocab = checked(length(table) as usize, d, length(out) as usize, rows as usize);
    if length(out) == 0 {
        return Ok(());
    }
    let d = narrow(d);
    let kernel = function(&table.device(), &MODULE, "embedding_forward");
    let blocks = grid([rows.div_ceil(SIDE) * d.div_ceil(SIDE), 1, 1], 256);
    // SAFETY: the table has `vocab` rows of d features, `out` d of `rows`, and there are `rows` tokens.
    unsafe { kernel.launch(blocks, (table, tokens, out, narrow(vocab), d, rows)) }
}

/// As [`super::backward`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn backward(tokens: &Memory, grad_out: &Memory, grad_table: &mut Memory, d: usize) -> Launched {
    let rows = length(tokens);
    let vocab = checked(length(grad_table) as usize, d, length(grad_out) as usize, rows as usize);
    let n = length(grad_table);
    if n == 0 || rows == 0 {
        return Ok(());
    }
    let (vocab, d) = (narrow(vocab), narrow(d));
    let spans = rows.div_ceil(SPAN);
    let chunk = spans.div_ceil(ENOUGH_BLOCKS.div_ceil(vocab)) * SPAN;
    let chunks = rows.div_ceil(chunk);
    let device = tokens.device();
    let kernel = function(&device, &MODULE, "embedding_backward");
    let blocks = grid([vocab * chunks, 1, 1], 256);
    if chunks == 1 {
        let arguments = (tokens, grad_out, grad_table, vocab, d, rows, chunk, crate::Store::Add.flag());
        // SAFETY: there are `rows` tokens, d rows of gradients and `vocab` of the table, one for each block.
        return unsafe { kernel.launch(blocks, arguments) };
    }
    let parts = memory(&device, chunks as usize * n as usize)?;
    let arguments = (tokens, grad_out, &parts, vocab, d, rows, chunk, crate::Store::Write.flag());
    // SAFETY: as above, for each of the `chunks` parts.
    unsafe { kernel.launch(blocks, arguments) }?;
    let kernel = function(&device, &MODULE, "embedding_sum");
    // SAFETY: there are `chunks` parts of n numbers.
    unsafe { kernel.launch(grid([n.div_ceil(256).min(4096), 1, 1], 256), (&parts, chunks, grad_table, n)) }
}
