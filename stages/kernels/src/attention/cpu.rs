//! One head on one sequence, a tile of sixteen queries at a time.
//!
//! The queries of a tile are the lanes of a register, so that their scores, their probabilities and what they mix are
//! sums without a step across lanes; in sums over queries the lanes are features. What a tile needs is copied first:
//! positions are padded to whole tiles with zeros, and arrays whose rows lie a power of two apart, which a first-level
//! cache cannot hold, are read once. Every sum runs over its keys, queries or features in their order.

use crate::lanes::LANES;
use crate::square::transpose;
use crate::vector::{Vector, vectorise};

/// A tile of one feature's positions, or of one position's features.
type Lanes = [f32; LANES];

/// Where the features of one head on one sequence are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) d_head: usize,
    /// Positions of a feature, side by side.
    pub(super) length: usize,
    /// From one feature to the next.
    pub(super) rows: usize,
}

impl Layout {
    /// Tiles that hold all positions.
    fn tiles(self) -> usize {
        self.length.div_ceil(LANES)
    }

    /// Registers that hold a position's features.
    fn groups(self) -> usize {
        self.d_head.div_ceil(LANES)
    }

    /// Copies `tile` of a feature, times `factor`; zeros follow the last position.
    #[inline(always)]
    fn tile(self, x: &[f32], feature: usize, tile: usize, factor: f32) -> Lanes {
        let from = &x[feature * self.rows..][tile * LANES..self.length];
        let mut lanes = [0.0; LANES];
        if let Some(from) = from.first_chunk::<LANES>() {
            for lane in 0..LANES {
                lanes[lane] = from[lane] * factor;
            }
        } else {
            lanes.iter_mut().zip(from).for_each(|(lane, x)| *lane = *x * factor);
        }
        lanes
    }

    /// Copies all of `x` as `[d_head, tiles]`.
    #[inline(always)]
    fn by_feature<'a>(self, x: &[f32], factor: f32, out: &'a mut Vec<Lanes>) -> &'a [Lanes] {
        let tiles = self.tiles();
        let out = sized(out, self.d_head * tiles);
        for (feature, tiles) in out.chunks_exact_mut(tiles).enumerate() {
            for (tile, out) in tiles.iter_mut().enumerate() {
                *out = self.tile(x, feature, tile, factor);
            }
        }
        out
    }

    /// Copies `tile` of every feature.
    #[inline(always)]
    fn queries<'a>(self, x: &[f32], tile: usize, out: &'a mut Vec<Lanes>) -> &'a [Lanes] {
        let out = sized(out, self.d_head);
        for (feature, out) in out.iter_mut().enumerate() {
            *out = self.tile(x, feature, tile, 1.0);
        }
        out
    }

    /// Copies `[d_head, tiles]` as `[groups, tiles · 16]`, of each position its features; zeros follow the last feature.
    #[inline(always)]
    fn by_position<'a>(self, features: &[Lanes], tiles: usize, out: &'a mut Vec<Lanes>) -> &'a [Lanes] {
        let out = sized(out, self.groups() * tiles * LANES);
        for (group, out) in features.chunks(LANES * tiles).zip(out.chunks_exact_mut(tiles * LANES)) {
            for (tile, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let mut square = [[0.0; LANES]; LANES];
                for (row, feature) in square.iter_mut().zip(group.chunks_exact(tiles)) {
                    *row = feature[tile];
                }
                *out = transpose(&square);
            }
        }
        out
    }

    /// Adds `[groups, tiles · 16]`, of each position its features, to the features' own arrays.
    #[inline(always)]
    fn add_by_feature(self, positions: &[Lanes], out: &mut [&mut [f32]]) {
        let tiles = self.tiles();
        for (group, out) in positions.chunks(LANES * tiles).zip(out.chunks_mut(LANES)) {
            for (tile, square) in group.as_chunks::<LANES>().0.iter().enumerate() {
                add(&transpose(square), out, tile);
            }
        }
    }
}

/// Adds one tile of each feature.
#[inline(always)]
fn add(features: &[Lanes], out: &mut [&mut [f32]], tile: usize) {
    for (lanes, out) in features.iter().zip(out) {
        let out = &mut out[tile * LANES..];
        // A whole tile is one instruction.
        if let Some(out) = out.first_chunk_mut::<LANES>() {
            out.iter_mut().zip(lanes).for_each(|(out, x)| *out += x);
        } else {
            out.iter_mut().zip(lanes).for_each(|(out, x)| *out += x);
        }
    }
}

/// Memory for one head on one sequence, used again for the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Times `1/√d_head`.
    scaled_keys: Vec<Lanes>,
    keys: Vec<Lanes>,
    keys_by_position: Vec<Lanes>,
    values: Vec<Lanes>,
    values_by_position: Vec<Lanes>,
    queries: Vec<Lanes>,
    queries_by_position: Vec<Lanes>,
    upstream: Vec<Lanes>,
    upstream_by_position: Vec<Lanes>,
    /// Of each key.
    p: Vec<Lanes>,
    slopes: Vec<Lanes>,
    /// By position.
    grad_k: Vec<Lanes>,
    grad_v: Vec<Lanes>,
}

fn scale(layout: Layout) -> f32 {
    1.0 / (layout.d_head as f32).sqrt()
}

vectorise! {
    /// Adds the attention's output to `out`, the head's features on the sequence.
    pub(super) fn forward(inputs: [&[f32]; 3], out: &mut [&mut [f32]], layout: Layout, scratch: &mut Scratch)
        = forward_body
}

#[inline(always)]
fn forward_body<V: Vector>([q, k, v]: [&[f32]; 3], out: &mut [&mut [f32]], layout: Layout, scratch: &mut Scratch) {
    let tiles = layout.tiles();
    let scaled_keys = layout.by_feature(k, scale(layout), &mut scratch.scaled_keys);
    let values = layout.by_feature(v, 1.0, &mut scratch.values);
    let values = layout.by_position(values, tiles, &mut scratch.values_by_position);
    for tile in 0..tiles {
        let queries = layout.queries(q, tile, &mut scratch.queries);
        let p = keys_of(&mut scratch.p, tile);
        products::<V>(queries, scaled_keys, p);
        softmax::<V>(p);
        mix::<V>(p, values, tiles, out, tile);
    }
}

vectorise! {
    /// Adds the gradients for `inputs`, which are q, k, v and the upstream gradient, to those that are not empty.
    pub(super) fn backward(
        inputs: [&[f32]; 4], grads: [&mut [&mut [f32]]; 3], layout: Layout, scratch: &mut Scratch,
    ) = backward_body
}

#[inline(always)]
fn backward_body<V: Vector>(
    [q, k, v, upstream]: [&[f32]; 4],
    [grad_q, grad_k, grad_v]: [&mut [&mut [f32]]; 3],
    layout: Layout,
    scratch: &mut Scratch,
) {
    let (tiles, scale) = (layout.tiles(), scale(layout));
    let through_scores = !(grad_q.is_empty() && grad_k.is_empty());
    let scaled_keys = layout.by_feature(k, scale, &mut scratch.scaled_keys);
    let keys = layout.by_feature(k, 1.0, &mut scratch.keys);
    let keys_by_position = layout.by_position(keys, tiles, &mut scratch.keys_by_position);
    let values = layout.by_feature(v, 1.0, &mut scratch.values);
    let positions = layout.groups() * tiles * LANES;
    let [sums_of_k, sums_of_v] = [&mut scratch.grad_k, &mut scratch.grad_v].map(|sums| sized(sums, positions));
    sums_of_k.fill([0.0; LANES]);
    sums_of_v.fill([0.0; LANES]);
    for tile in 0..tiles {
        let queries = layout.queries(q, tile, &mut scratch.queries);
        let upstream = layout.queries(upstream, tile, &mut scratch.upstream);
        let p = keys_of(&mut scratch.p, tile);
        products::<V>(queries, scaled_keys, p);
        softmax::<V>(p);
        if !grad_v.is_empty() {
            let upstream = layout.by_position(upstream, 1, &mut scratch.upstream_by_position);
            contract::<V>(p, upstream, sums_of_v, tiles);
        }
        if through_scores {
            let slopes = keys_of(&mut scratch.slopes, tile);
            products::<V>(upstream, values, slopes);
            scores_backward::<V>(p, slopes, scale);
            mix::<V>(slopes, keys_by_position, tiles, grad_q, tile);
            let queries = layout.by_position(queries, 1, &mut scratch.queries_by_position);
            contract::<V>(slopes, queries, sums_of_k, tiles);
        }
    }
    layout.add_by_feature(sums_of_k, grad_k);
    layout.add_by_feature(sums_of_v, grad_v);
}

vectorise! {
    /// Writes how much each position attends to each other, `out [length, length]`.
    pub(super) fn weights(q: &[f32], k: &[f32], out: &mut [f32], layout: Layout, scratch: &mut Scratch) = weights_body
}

#[inline(always)]
fn weights_body<V: Vector>(q: &[f32], k: &[f32], out: &mut [f32], layout: Layout, scratch: &mut Scratch) {
    let scaled_keys = layout.by_feature(k, scale(layout), &mut scratch.scaled_keys);
    for (tile, out) in out.chunks_mut(LANES * layout.length).enumerate() {
        let queries = layout.queries(q, tile, &mut scratch.queries);
        let p = keys_of(&mut scratch.p, tile);
        products::<V>(queries, scaled_keys, p);
        softmax::<V>(p);
        for (lane, out) in out.chunks_mut(layout.length).enumerate() {
            out.iter_mut().zip(&*p).for_each(|(out, p)| *out = p[lane]);
        }
    }
}

/// Returns a number for each key that a tile's queries look at: those up to the tile's own.
#[inline(always)]
fn keys_of(memory: &mut Vec<Lanes>, tile: usize) -> &mut [Lanes] {
    sized(memory, (tile + 1) * LANES)
}

/// Returns `count` elements, which hold whatever the last user left there.
#[inline(always)]
fn sized(memory: &mut Vec<Lanes>, count: usize) -> &mut [Lanes] {
    if memory.len() < count {
        memory.resize(count, [0.0; LANES]);
    }
    &mut memory[..count]
}

/// `out[j] = Σ_f keys[f, j] queries[f]`.
#[inline(always)]
fn products<V: Vector>(queries: &[Lanes], keys: &[Lanes], out: &mut [Lanes]) {
    if V::HAS_MANY_REGISTERS {
        products_of::<V, 16>(queries, keys, out);
    } else {
        products_of::<V, 4>(queries, keys, out);
    }
}

/// `KEYS` at a time, a divisor of a tile: that hides the latency of the multiply-adds.
#[inline(always)]
fn products_of<V: Vector, const KEYS: usize>(queries: &[Lanes], keys: &[Lanes], out: &mut [Lanes]) {
    let tiles = keys.len() / queries.len();
    for (block, out) in out.as_chunks_mut::<KEYS>().0.iter_mut().enumerate() {
        let (tile, first) = (block * KEYS / LANES, block * KEYS % LANES);
        let mut sums = [V::splat(0.0); KEYS];
        for (query, keys) in queries.iter().zip(keys.chunks_exact(tiles)) {
            let (query, keys) = (V::load(query), &keys[tile][first..first + KEYS]);
            for key in 0..KEYS {
                sums[key] = V::splat(keys[key]).multiply_add(query, sums[key]);
            }
        }
        store(&sums, out);
    }
}

#[inline(always)]
fn store<V: Vector, const COUNT: usize>(sums: &[V; COUNT], out: &mut [Lanes; COUNT]) {
    for i in 0..COUNT {
        sums[i].store(&mut out[i]);
    }
}

/// Makes scores of a tile's queries probabilities; those of keys after the query become zero.
#[inline(always)]
fn softmax<V: Vector>(p: &mut [Lanes]) {
    let (before, own) = p.split_at_mut(p.len() - LANES);
    let mut most = V::splat(f32::NEG_INFINITY);
    for scores in &*before {
        most = V::load(scores).maximum(most);
    }
    for (key, scores) in own.iter().enumerate() {
        most = V::load(scores).replace_before(key, f32::NEG_INFINITY).maximum(most);
    }
    let mut sums = V::splat(0.0);
    for p in &mut *before {
        let power = V::load(p).subtract(most).exp();
        power.store(p);
        sums = sums.add(power);
    }
    for (key, p) in own.iter_mut().enumerate() {
        let power = V::load(p).subtract(most).exp().replace_before(key, 0.0);
        power.store(p);
        sums = sums.add(power);
    }
    let shares = V::splat(1.0).divide(sums);
    for p in p {
        V::load(p).multiply(shares).store(p);
    }
}

/// Makes gradients of a tile's probabilities gradients of the scores before scaling.
#[inline(always)]
fn scores_backward<V: Vector>(p: &[Lanes], slopes: &mut [Lanes], scale: f32) {
    let mut means = V::splat(0.0);
    for (p, slope) in p.iter().zip(&*slopes) {
        means = V::load(p).multiply_add(V::load(slope), means);
    }
    for (p, slope) in p.iter().zip(slopes) {
        V::load(p).multiply(V::splat(scale).multiply(V::load(slope).subtract(means))).store(slope);
    }
}

/// Adds `Σ_j p[j] x[j, f]` to one tile of every feature of `out`; `x` by position.
#[inline(always)]
fn mix<V: Vector>(p: &[Lanes], x: &[Lanes], tiles: usize, out: &mut [&mut [f32]], tile: usize) {
    for (x, mut out) in x.chunks_exact(tiles * LANES).zip(out.chunks_mut(LANES)) {
        let mut first = 0;
        while !out.is_empty() {
            let count = match out.len() {
                LANES.. if V::HAS_MANY_REGISTERS => mix_features::<V, LANES>(p, x, first, out, tile),
                4.. => mix_features::<V, 4>(p, x, first, out, tile),
                _ => mix_features::<V, 1>(p, x, first, out, tile),
            };
            out = &mut out[count..];
            first += count;
        }
    }
}

/// Of `COUNT` features, the first of `out` and `first` of `x`; returns how many.
#[inline(always)]
fn mix_features<V: Vector, const COUNT: usize>(
    p: &[Lanes],
    x: &[Lanes],
    first: usize,
    out: &mut [&mut [f32]],
    tile: usize,
) -> usize {
    let mut sums = [V::splat(0.0); COUNT];
    for (p, x) in p.iter().zip(x) {
        let (p, x) = (V::load(p), &x[first..first + COUNT]);
        for f in 0..COUNT {
            sums[f] = p.multiply_add(V::splat(x[f]), sums[f]);
        }
    }
    let mut features = [[0.0; LANES]; COUNT];
    store(&sums, &mut features);
    add(&features, out, tile);
    COUNT
}

/// `sums[j] += Σ_i p[j, i] x[i]` over the queries of a tile; `x` and the sums by position.
#[inline(always)]
fn contract<V: Vector>(p: &[Lanes], x: &[Lanes], sums: &mut [Lanes], tiles: usize) {
    for (x, sums) in x.as_chunks::<LANES>().0.iter().zip(sums.chunks_exact_mut(tiles * LANES)) {
        if V::HAS_MANY_REGISTERS {
            contract_of::<V, 16>(p, x, sums);
        } else {
            contract_of::<V, 4>(p, x, sums);
        }
    }
}

#[inline(always)]
fn contract_of<V: Vector, const KEYS: usize>(p: &[Lanes], x: &[Lanes; LANES], sums: &mut [Lanes]) {
    for (p, sums) in p.as_chunks::<KEYS>().0.iter().zip(sums.as_chunks_mut::<KEYS>().0) {
        let mut block = [V::splat(0.0); KEYS];
        for key in 0..KEYS {
            block[key] = V::load(&sums[key]);
        }
        for (i, x) in x.iter().enumerate() {
            let x = V::load(x);
            for key in 0..KEYS {
                block[key] = V::splat(p[key][i]).multiply_add(x, block[key]);
            }
        }
        store(&block, sums);
    }
}
