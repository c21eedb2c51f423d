//! The elementwise part of a masked site on a tile of rows: from masks to factors, and from what the factors are
//! worth to gradients.

use std::cell::RefCell;

use super::{Inputs, Mask, Source};
use crate::Store;
use crate::elementwise::multiply;
use crate::philox;
use crate::simd::{dispatch, multiply_add};

/// A tile's columns of all arrays, copied or computed: `[C, width]` or `[d_out, width]` each.
#[derive(Debug, Default)]
pub(super) struct Tile {
    /// The first row.
    pub(super) start: usize,
    /// How many rows.
    pub(super) width: usize,
    /// The sources `r` where the mask lies between importance and one.
    pub(super) sources: Vec<f32>,
    /// `m − d`.
    pub(super) factors: Vec<f32>,
    /// `a ⊙ (m − d)`.
    pub(super) masked: Vec<f32>,
    /// `[d_out, width]`: sums on the way to the output, or the upstream gradient of rows that went through components.
    pub(super) output: Vec<f32>,
    /// `[C, width]`: what one unit of a masked activation is worth.
    pub(super) worth: Vec<f32>,
    /// `[width]`: how much of a row's output is the frozen product.
    pub(super) shares: Vec<f32>,
}

thread_local! {
    static TILE: RefCell<Tile> = RefCell::default();
}

/// Calls `task` with the thread's tile; its arrays hold whatever the last user left there.
pub(super) fn with_tile<R>(task: impl FnOnce(&mut Tile) -> R) -> R {
    TILE.with_borrow_mut(task)
}

impl Tile {
    /// Computes the tile of `width` rows from `start` on.
    pub(super) fn compute(&mut self, inputs: &Inputs<'_>, components: usize, start: usize, width: usize) {
        (self.start, self.width) = (start, width);
        self.factors.resize(components * width, 0.0);
        self.masked.resize(components * width, 0.0);
        if let Mask::Between { source, .. } = inputs.mask {
            self.sources.resize(components * width, 0.0);
            match source {
                Source::Given(source) => copy_columns(source, inputs.rows, start, width, &mut self.sources),
                Source::Shared(source) => {
                    for (row, value) in self.sources.chunks_mut(width).zip(source) {
                        row.fill(*value);
                    }
                }
                Source::Drawn { stream, rows } => {
                    philox::uniform_here(stream, &rows[start..start + width], &mut self.sources);
                }
            }
        }
        for c in 0..components {
            let (here, there) = (c * width..(c + 1) * width, c * inputs.rows + start..c * inputs.rows + start + width);
            let factors = &mut self.factors[here.clone()];
            let delta = inputs.delta_mask.map(|delta| &delta[start..start + width]);
            let (values, masked) = (&inputs.activations[there.clone()], &mut self.masked[here.clone()]);
            match inputs.mask {
                Mask::Ones => factors.fill(1.0),
                Mask::PerComponent(mask) => factors.fill(mask[c]),
                Mask::Full(mask) => factors.copy_from_slice(&mask[there.clone()]),
                Mask::Between { importance, .. } => {
                    let between = (&importance[there], &self.sources[here]);
                    match delta {
                        Some(delta) => mask_between_less(between, delta, values, factors, masked),
                        None => mask_between(between, values, factors, masked),
                    }
                    continue;
                }
            }
            if let Some(delta) = delta {
                subtract(factors, delta);
            }
            multiply(values, factors, masked);
        }
    }
}

/// Copies the columns `start..start + width` of `from` `[n, rows]` to `to` `[n, width]`.
pub(super) fn copy_columns(from: &[f32], rows: usize, start: usize, width: usize, to: &mut [f32]) {
    for (from, to) in from.chunks(rows).zip(to.chunks_mut(width)) {
        to.copy_from_slice(&from[start..start + width]);
    }
}

dispatch! {
    /// `factors = g + (1 − g) r` and `masked = a ⊙ factors`, from `(g, r)` and a.
    fn mask_between(between: (&[f32], &[f32]), values: &[f32], factors: &mut [f32], masked: &mut [f32])
        = mask_between_body
}

#[inline(always)]
fn mask_between_body<const FUSED: bool>(
    (importance, source): (&[f32], &[f32]),
    values: &[f32],
    factors: &mut [f32],
    masked: &mut [f32],
) {
    for ((((g, r), value), factor), masked) in importance.iter().zip(source).zip(values).zip(factors).zip(masked) {
        *factor = multiply_add::<FUSED>(1.0 - g, *r, *g);
        *masked = value * *factor;
    }
}

dispatch! {
    /// As [`mask_between`], with `− d` in the factors.
    fn mask_between_less(
        between: (&[f32], &[f32]),
        delta: &[f32],
        values: &[f32],
        factors: &mut [f32],
        masked: &mut [f32],
    ) = mask_between_less_body
}

#[inline(always)]
fn mask_between_less_body<const FUSED: bool>(
    (importance, source): (&[f32], &[f32]),
    delta: &[f32],
    values: &[f32],
    factors: &mut [f32],
    masked: &mut [f32],
) {
    let inputs = importance.iter().zip(source).zip(delta.iter().zip(values));
    for (((g, r), (delta, value)), (factor, masked)) in inputs.zip(factors.iter_mut().zip(masked)) {
        *factor = multiply_add::<FUSED>(1.0 - g, *r, *g) - delta;
        *masked = value * *factor;
    }
}

/// What the gradients of activations and importances follow from, a row of each.
#[derive(Clone, Copy)]
pub(super) struct Worth<'a> {
    pub(super) factors: &'a [f32],
    pub(super) sources: &'a [f32],
    pub(super) values: &'a [f32],
    pub(super) worth: &'a [f32],
}

dispatch! {
    /// `∂a = factors ⊙ worth` and `∂g = (1 − r) ⊙ a ⊙ worth`, or added.
    pub(super) fn spread_between(worth: Worth<'_>, activations: (&mut [f32], Store), importance: (&mut [f32], Store))
        = spread_between_body
}

#[inline(always)]
fn spread_between_body<const FUSED: bool>(
    Worth { factors, sources, values, worth }: Worth<'_>,
    (activations, store_activations): (&mut [f32], Store),
    (importance, store_importance): (&mut [f32], Store),
) {
    let inputs = factors.iter().zip(sources).zip(values.iter().zip(worth));
    for (((factor, r), (value, worth)), (activation, importance)) in inputs.zip(activations.iter_mut().zip(importance))
    {
        *activation = match store_activations {
            Store::Write => factor * worth,
            Store::Add => multiply_add::<FUSED>(*factor, *worth, *activation),
        };
        *importance = match store_importance {
            Store::Write => (1.0 - r) * value * worth,
            Store::Add => multiply_add::<FUSED>((1.0 - r) * value, *worth, *importance),
        };
    }
}

dispatch! { fn subtract(values: &mut [f32], other: &[f32]) = subtract_body }

#[inline(always)]
fn subtract_body<const FUSED: bool>(values: &mut [f32], other: &[f32]) {
    values.iter_mut().zip(other).for_each(|(value, other)| *value -= other);
}

dispatch! {
    /// `out = (1 − c) ⊙ a ⊙ b`, or added.
    pub(super) fn complement_product(c: &[f32], a: &[f32], b: &[f32], out: &mut [f32], store: Store) = complement_product_body
}

#[inline(always)]
fn complement_product_body<const FUSED: bool>(c: &[f32], a: &[f32], b: &[f32], out: &mut [f32], store: Store) {
    for (((c, a), b), out) in c.iter().zip(a).zip(b).zip(out) {
        *out = match store {
            Store::Write => (1.0 - c) * a * b,
            Store::Add => multiply_add::<FUSED>((1.0 - c) * a, *b, *out),
        };
    }
}

dispatch! {
    /// `out −= a ⊙ b`.
    pub(super) fn subtract_product(a: &[f32], b: &[f32], out: &mut [f32]) = subtract_product_body
}

#[inline(always)]
fn subtract_product_body<const FUSED: bool>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = multiply_add::<FUSED>(-*a, *b, *out);
    }
}
