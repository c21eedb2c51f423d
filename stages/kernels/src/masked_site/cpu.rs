//! A tile of rows at a time, so that everything between a component's activation and the site's output stays in the
//! second-level cache; tiles are shared among threads.
//!
//! Gradients that sum over rows (of U, and of masks and sources that rows share) are summed tile by tile, and the
//! tiles' sums in the order of the tiles. A tile's width depends on the shape alone, so no bit depends on the threads.

use super::elementwise::{Tile, Worth, complement_product, copy_columns, spread_between, subtract_product, with_tile};
use super::{Gradients, Inputs, Mask, Source};
use crate::elementwise::{add_product, store_product};
use crate::lanes::sum_over;
use crate::{Store, linear, parallel};

/// Elements of one array `[C, width]` of a tile: five of them fit into the second-level cache.
const TILE_ELEMENTS: usize = 1 << 15;

/// Vector operations per element, roughly; decides whether threads pay.
const OPERATIONS_PER_ELEMENT: usize = 4;

fn tile_width(components: usize) -> usize {
    (TILE_ELEMENTS / components.max(1)).clamp(128, 1024) / 64 * 64
}

/// What of a row's output is the frozen product: the delta component's share, or all where the row is not routed.
fn frozen_share(inputs: &Inputs<'_>, row: usize) -> f32 {
    let delta = inputs.delta_mask.map_or(0.0, |delta| delta[row]);
    inputs.routing.map_or(delta, |route| if route[row] == 0.0 { 1.0 } else { delta })
}

pub(super) fn forward(inputs: Inputs<'_>, out: &mut [f32], components: usize, d_out: usize) {
    let rows = inputs.rows;
    if rows == 0 {
        return;
    }
    let width = tile_width(components);
    let operations = (components + d_out) * rows * OPERATIONS_PER_ELEMENT;
    let tiles: Vec<_> = parallel::columns(out, rows, width).into_iter().enumerate().collect();
    parallel::for_each(tiles, operations, |(index, mut out)| {
        let (start, width) = (index * width, width.min(rows - index * width));
        with_tile(|tile| forward_tile(&inputs, &mut out, tile, (start, width), components, d_out));
    });
}

fn forward_tile(
    inputs: &Inputs<'_>,
    out: &mut [&mut [f32]],
    tile: &mut Tile,
    (start, width): (usize, usize),
    components: usize,
    d_out: usize,
) {
    let rows = inputs.rows;
    tile.compute(inputs, components, start, width);
    tile.output.resize(d_out * width, 0.0);
    linear::apply_transposed_here(inputs.u, &tile.masked, &mut tile.output, [d_out, components, width], Store::Write);
    tile.shares.clear();
    tile.shares.extend((start..start + width).map(|row| frozen_share(inputs, row)));
    for (o, (out, sums)) in out.iter_mut().zip(tile.output.chunks_mut(width)).enumerate() {
        if let Some(route) = inputs.routing {
            sums.iter_mut().zip(&route[start..]).for_each(|(sum, route)| *sum *= route);
        }
        if let Some(frozen) = inputs.frozen {
            add_product(&tile.shares, &frozen[o * rows + start..o * rows + start + width], sums);
        }
        let bias = inputs.bias.map_or(0.0, |bias| bias[o]);
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum + bias);
    }
}

pub(super) fn masked_activations(inputs: Inputs<'_>, out: &mut [f32], components: usize) {
    let rows = inputs.rows;
    if rows == 0 {
        return;
    }
    let width = tile_width(components);
    let tiles: Vec<_> = parallel::columns(out, rows, width).into_iter().enumerate().collect();
    parallel::for_each(tiles, components * rows * OPERATIONS_PER_ELEMENT, |(index, mut out)| {
        let (start, width) = (index * width, width.min(rows - index * width));
        with_tile(|tile| {
            tile.compute(&inputs, components, start, width);
            for (out, masked) in out.iter_mut().zip(tile.masked.chunks(width)) {
                out.copy_from_slice(masked);
                if let Some(route) = inputs.routing {
                    out.iter_mut().zip(&route[start..]).for_each(|(out, route)| *out *= route);
                }
            }
        });
    });
}

/// What a gradient flows back from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Upstream<'a> {
    /// The site's output, `[d_out, R]`.
    Output(&'a [f32]),
    /// What U would be applied to, `[C, R]`.
    MaskedActivations(&'a [f32]),
}

/// One tile's columns of the gradients, and its share of those that sum over rows.
struct TileGradients<'a> {
    index: usize,
    activations: Option<(Vec<&'a mut [f32]>, Store)>,
    mask: Option<(Vec<&'a mut [f32]>, Store)>,
    importance: Option<(Vec<&'a mut [f32]>, Store)>,
    source: Option<(Vec<&'a mut [f32]>, Store)>,
    frozen: Option<(Vec<&'a mut [f32]>, Store)>,
    delta_mask: Option<Vec<&'a mut [f32]>>,
    u_sum: Option<&'a mut [f32]>,
    /// Of a mask or a source that all rows share.
    component_sum: Option<&'a mut [f32]>,
}

pub(super) fn backward(
    inputs: Inputs<'_>,
    upstream: Upstream<'_>,
    grads: Gradients<'_>,
    components: usize,
    d_out: usize,
) {
    let rows = inputs.rows;
    if rows == 0 {
        for (grad, store) in [grads.u, grads.mask, grads.source].into_iter().flatten() {
            store.nothing(grad);
        }
        return;
    }
    let width = tile_width(components);
    let count = rows.div_ceil(width);
    let Gradients { activations, mut mask, importance, mut source, u, frozen, delta_mask } = grads;
    // At most one of mask and source is shared by all rows.
    let shared = match inputs.mask {
        Mask::PerComponent(_) => mask.take(),
        Mask::Between { source: Source::Shared(_), .. } => source.take(),
        _ => None,
    };
    let mut u_sums = vec![0.0; count * u.as_ref().map_or(0, |(u, _)| u.len())];
    let mut component_sums = vec![0.0; if shared.is_some() { count * components } else { 0 }];
    let mut tiles: Vec<TileGradients<'_>> = (0..count)
        .map(|index| TileGradients {
            index,
            activations: None,
            mask: None,
            importance: None,
            source: None,
            frozen: None,
            delta_mask: None,
            u_sum: None,
            component_sum: None,
        })
        .collect();
    macro_rules! give {
        ($($name:ident),+) => { $(
            if let Some((array, store)) = $name {
                for (tile, columns) in tiles.iter_mut().zip(parallel::columns(array, rows, width)) {
                    tile.$name = Some((columns, store));
                }
            }
        )+ };
    }
    give!(activations, mask, importance, source, frozen);
    if let Some(array) = delta_mask {
        for (tile, columns) in tiles.iter_mut().zip(parallel::columns(array, rows, width)) {
            tile.delta_mask = Some(columns);
        }
    }
    if u.is_some() && components * d_out > 0 {
        for (tile, sum) in tiles.iter_mut().zip(u_sums.chunks_mut(components * d_out)) {
            tile.u_sum = Some(sum);
        }
    }
    if shared.is_some() && components > 0 {
        for (tile, sum) in tiles.iter_mut().zip(component_sums.chunks_mut(components)) {
            tile.component_sum = Some(sum);
        }
    }
    let operations = 3 * (components + d_out) * rows * OPERATIONS_PER_ELEMENT;
    parallel::for_each(tiles, operations, |tile| {
        let start = tile.index * width;
        let span = (start, width.min(rows - start));
        with_tile(|scratch| match upstream {
            Upstream::Output(grad_out) => backward_tile(&inputs, grad_out, tile, scratch, span, components, d_out),
            Upstream::MaskedActivations(grad_out) => {
                scratch.compute(&inputs, components, span.0, span.1);
                scratch.worth.resize(components * span.1, 0.0);
                copy_columns(grad_out, rows, span.0, span.1, &mut scratch.worth);
                if let Some(route) = inputs.routing {
                    for worth in scratch.worth.chunks_mut(span.1) {
                        worth.iter_mut().zip(&route[span.0..]).for_each(|(worth, route)| *worth *= route);
                    }
                }
                spread(&inputs, tile, scratch, span);
            }
        });
    });
    for (total, sums, length) in [(u, u_sums, components * d_out), (shared, component_sums, components)] {
        if let (Some((total, mut store)), true) = (total, length > 0) {
            for sums in sums.chunks(length) {
                total.iter_mut().zip(sums).for_each(|(total, sum)| *total = store.merge(*total, *sum));
                store = Store::Add;
            }
        }
    }
}

fn backward_tile(
    inputs: &Inputs<'_>,
    grad_out: &[f32],
    mut grads: TileGradients<'_>,
    tile: &mut Tile,
    (start, width): (usize, usize),
    components: usize,
    d_out: usize,
) {
    let rows = inputs.rows;
    // Upstream gradient of the rows that went through the components.
    tile.output.resize(d_out * width, 0.0);
    copy_columns(grad_out, rows, start, width, &mut tile.output);
    if let Some((mut frozen, store)) = grads.frozen.take().filter(|_| inputs.frozen.is_some()) {
        tile.shares.clear();
        tile.shares.extend((start..start + width).map(|row| frozen_share(inputs, row)));
        for (frozen, upstream) in frozen.iter_mut().zip(tile.output.chunks(width)) {
            store_product(&tile.shares, upstream, frozen, store);
        }
    }
    if let Some(route) = inputs.routing {
        for upstream in tile.output.chunks_mut(width) {
            upstream.iter_mut().zip(&route[start..]).for_each(|(upstream, route)| *upstream *= route);
        }
    }
    tile.compute(inputs, components, start, width);
    if let Some(u_sum) = grads.u_sum.take() {
        linear::outer_here(&tile.masked, &tile.output, u_sum, [components, d_out, width], Store::Write);
    }
    if let (Some(grad), Some(frozen)) = (&mut grads.delta_mask, inputs.frozen) {
        for (o, upstream) in tile.output.chunks(width).enumerate() {
            add_product(upstream, &frozen[o * rows + start..o * rows + start + width], grad[0]);
        }
    }
    let TileGradients { activations, mask, importance, source, delta_mask, component_sum, .. } = &grads;
    let wanted = [activations, mask, importance, source].iter().any(|columns| columns.is_some());
    if !wanted && delta_mask.is_none() && component_sum.is_none() {
        return;
    }
    // worth[c, r] = Σ_o U[c, o] ∂y[o, r].
    tile.worth.resize(components * width, 0.0);
    linear::apply_here(inputs.u, &tile.output, &mut tile.worth, [components, d_out, width], Store::Write);
    spread(inputs, grads, tile, (start, width));
}

/// Adds the gradients that follow from what each masked activation is worth.
fn spread(inputs: &Inputs<'_>, grads: TileGradients<'_>, tile: &Tile, (start, width): (usize, usize)) {
    let rows = inputs.rows;
    let TileGradients {
        mut activations, mut mask, mut importance, mut source, mut delta_mask, mut component_sum, ..
    } = grads;
    for (c, worth) in tile.worth.chunks(width).enumerate() {
        let (here, there) = (c * width..(c + 1) * width, c * rows + start..c * rows + start + width);
        let values = &inputs.activations[there.clone()];
        // Both at once where a stochastic mask asks for both.
        let is_between = matches!(inputs.mask, Mask::Between { .. });
        let both = if is_between { activations.as_mut().zip(importance.as_mut()) } else { None };
        let is_both = both.is_some();
        if let Some((activations, importance)) = both {
            let (factors, sources) = (&tile.factors[here.clone()], &tile.sources[here.clone()]);
            let to = ((&mut *activations.0[c], activations.1), (&mut *importance.0[c], importance.1));
            spread_between(Worth { factors, sources, values, worth }, to.0, to.1);
        } else if let Some((grad, store)) = &mut activations {
            store_product(&tile.factors[here.clone()], worth, grad[c], *store);
        }
        if let Some((grad, store)) = &mut mask {
            store_product(values, worth, grad[c], *store);
        }
        if let Some(grad) = &mut delta_mask {
            subtract_product(values, worth, grad[0]);
        }
        let Mask::Between { importance: lower, .. } = inputs.mask else {
            if let Some(sum) = &mut component_sum {
                sum[c] = sum_over(width, |r| values[r] * worth[r]);
            }
            continue;
        };
        if let (Some((grad, store)), false) = (&mut importance, is_both) {
            complement_product(&tile.sources[here], values, worth, grad[c], *store);
        }
        let lower = &lower[there];
        if let Some((grad, store)) = &mut source {
            complement_product(lower, values, worth, grad[c], *store);
        }
        if let Some(sum) = &mut component_sum {
            sum[c] = sum_over(width, |r| (1.0 - lower[r]) * values[r] * worth[r]);
        }
    }
}
