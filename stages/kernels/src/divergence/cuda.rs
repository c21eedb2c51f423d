//! Launches of `divergence.cu`.
//!
//! Labels stay on the device, so that nobody can refuse one that is no logit: it makes the loss NaN.

use cudarc::driver::LaunchAsync;

use crate::cuda::total::{check_scalar, total, wide_memory};
use crate::cuda::{Launched, Memory, Module, clear, function, grid, in_fours, length, narrow};

pub(crate) const MODULE: Module = Module {
    name: "divergence",
    needs: &[],
    text: include_str!("divergence.cu"),
    kernels: &[
        "kl_parts",
        "kl_rows",
        "kl_backward",
        "cross_entropy_parts",
        "cross_entropy_rows",
        "cross_entropy_backward",
    ],
};

/// Rows of a block.
const ROWS: u32 = 32;

/// Blocks that keep a large device busy: below that, the logits of a row are shared out.
const ENOUGH_BLOCKS: u32 = 1024;

/// Logits that are worth a block of their own.
const SHORTEST_SPAN: u32 = 64;

/// Numbers of 64 bits that a block leaves for each row: `Pair` and `Single` there.
const PAIR: usize = 5;
const SINGLE: usize = 2;

/// As [`super::kl_forward`]: the sum into `out` `[1]`, the logarithms into `normalisers` `[2 R]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the lengths differ or do not fill the rows.
pub fn kl_forward(
    prediction: &Memory,
    target: &Memory,
    out: &mut Memory,
    normalisers: &mut Memory,
    rows: usize,
) -> Launched {
    assert_eq!(length(prediction), length(target), "kl divergence: lengths");
    let count = check(prediction, rows);
    assert_eq!(length(normalisers) as usize, 2 * rows, "kl divergence: normalisers");
    check_scalar(out);
    if rows == 0 {
        return clear(out);
    }
    let rows = narrow(rows);
    let Splits { splits, span } = Splits::of(count, rows);
    let device = prediction.device();
    let parts = wide_memory(&device, PAIR * splits as usize * rows as usize)?;
    let values = wide_memory(&device, rows as usize)?;
    let blocks = grid([rows.div_ceil(ROWS) * splits, 1, 1], 256);
    // SAFETY: both arrays have `count` times `rows` numbers; there is a `Pair` for each row and split.
    unsafe { function(&device, &MODULE, "kl_parts").launch(blocks, (prediction, target, &parts, count, rows, span)) }?;
    let blocks = grid([rows.div_ceil(256), 1, 1], 256);
    // SAFETY: as above; there are two normalisers and one value for each row.
    unsafe { function(&device, &MODULE, "kl_rows").launch(blocks, (&parts, splits, normalisers, &values, rows)) }?;
    total(&values, rows, out)
}

/// As [`super::kl_backward`], with `grad_out` `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn kl_backward(
    prediction: &Memory,
    target: &Memory,
    normalisers: &Memory,
    grad_out: &Memory,
    grad_prediction: &mut Memory,
    rows: usize,
) -> Launched {
    check(prediction, rows);
    let n = length(prediction);
    assert_eq!(
        (length(target), length(normalisers) as usize, length(grad_prediction)),
        (n, 2 * rows, n),
        "kl divergence: gradients"
    );
    check_scalar(grad_out);
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&prediction.device(), &MODULE, "kl_backward");
    let arguments = (prediction, target, normalisers, grad_out, grad_prediction, narrow(rows), n);
    // SAFETY: all arrays have n numbers, but the normalisers 2 for each of the `rows`, and `grad_out` one.
    unsafe { kernel.launch(in_fours(n), arguments) }
}

/// As [`super::cross_entropy_forward`]: the sum into `out` `[1]`, the logarithms into `normalisers` `[R]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn cross_entropy_forward(logits: &Memory, labels: &Memory, out: &mut Memory, normalisers: &mut Memory) -> Launched {
    let rows = length(labels);
    let count = check(logits, rows as usize);
    assert_eq!(length(normalisers), rows, "cross entropy: normalisers");
    check_scalar(out);
    if rows == 0 {
        return clear(out);
    }
    let Splits { splits, span } = Splits::of(count, rows);
    let device = logits.device();
    let parts = wide_memory(&device, SINGLE * splits as usize * rows as usize)?;
    let values = wide_memory(&device, rows as usize)?;
    let blocks = grid([rows.div_ceil(ROWS) * splits, 1, 1], 256);
    let kernel = function(&device, &MODULE, "cross_entropy_parts");
    // SAFETY: there are `count` times `rows` logits, and a `Single` for each row and split.
    unsafe { kernel.launch(blocks, (logits, &parts, count, rows, span)) }?;
    let kernel = function(&device, &MODULE, "cross_entropy_rows");
    let arguments = (&parts, splits, logits, labels, normalisers, &values, count, rows);
    // SAFETY: as above; labels, normalisers and values have one number for each row.
    unsafe { kernel.launch(grid([rows.div_ceil(256), 1, 1], 256), arguments) }?;
    total(&values, rows, out)
}

/// As [`super::cross_entropy_backward`], with `grad_out` `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If a length does not fit.
pub fn cross_entropy_backward(
    logits: &Memory,
    labels: &Memory,
    normalisers: &Memory,
    grad_out: &Memory,
    grad_logits: &mut Memory,
) -> Launched {
    let (n, rows) = (length(logits), length(labels));
    check(logits, rows as usize);
    assert_eq!((length(normalisers), length(grad_logits)), (rows, n), "cross entropy: gradients");
    check_scalar(grad_out);
    if n == 0 {
        return Ok(());
    }
    let kernel = function(&logits.device(), &MODULE, "cross_entropy_backward");
    // SAFETY: the logits and their gradient have n numbers, labels and normalisers `rows`, `grad_out` one.
    unsafe { kernel.launch(in_fours(n), (logits, labels, normalisers, grad_out, grad_logits, rows, n)) }
}

/// How the logits of a row are shared out among blocks. Depends on the shape alone.
#[derive(Debug, Clone, Copy)]
struct Splits {
    splits: u32,
    span: u32,
}

impl Splits {
    fn of(count: u32, rows: u32) -> Self {
        let splits = count.div_ceil(SHORTEST_SPAN).min(ENOUGH_BLOCKS.div_ceil(rows.div_ceil(ROWS))).max(1);
        let span = count.div_ceil(splits).max(1);
        Self { splits: count.div_ceil(span).max(1), span }
    }
}

fn check(logits: &Memory, rows: usize) -> u32 {
    let count = (length(logits) as usize).checked_div(rows).unwrap_or(0);
    assert_eq!(length(logits) as usize, count * rows, "logits of {rows} rows");
    narrow(count)
}
