//! Products with AVX-512: a tile of the result stays in registers while the sum runs over packed operands.
//!
//! A tile is twelve rows of two registers: 24 sums, and for each term of them two loads and twelve broadcasts, so that
//! the multiply-adds decide the speed. The sum over k is cut into chunks whose share of `b`, a panel of 32 columns,
//! stays in the second-level cache while the rows of `a` pass by; results of one chunk are added to those before. Chunks
//! depend on k alone and a sum belongs to one tile, so neither blocks nor threads change a bit.

use std::arch::x86_64::{
    __mmask16, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_fmadd_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_set1_ps, _mm512_storeu_ps,
};
use std::cell::Cell;
use std::ops::Range;

use super::cpu::{Sharing, Strided, is_done};
use crate::lanes::LANES;
use crate::square::avx512::transpose_registers;
use crate::{Store, parallel};

/// Rows of a tile.
const HEIGHT: usize = 12;

/// Columns of a tile: two registers.
const WIDTH: usize = 2 * LANES;

/// Terms of a chunk at most: the shares of `a` and `b` stay in the second-level cache.
const CHUNK: usize = 512;

/// Columns of a block at most: their share of `b` is packed at once and stays in the second-level cache.
const BLOCK: usize = 8 * WIDTH;

/// How many blocks a result is cut into at least, so that there is something for every thread.
const BLOCKS: usize = 4;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read as plain numbers")] [f32; LANES]);

thread_local! {
    static PACKED_A: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static PACKED_B: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `task` with a buffer of at least `length` numbers, which hold whatever the last user left there.
fn with_buffer<R>(
    buffer: &'static std::thread::LocalKey<Cell<Vec<Line>>>,
    length: usize,
    task: impl FnOnce(&mut [f32]) -> R,
) -> R {
    // Taken out: while a thread waits for others it may be given another product.
    let mut lines = buffer.take();
    if lines.len() * LANES < length {
        lines.resize(length.div_ceil(LANES), Line([0.0; LANES]));
    }
    // SAFETY: a line is sixteen floats without padding.
    let numbers = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), lines.len() * LANES) };
    let result = task(numbers);
    buffer.set(lines);
    result
}

/// Cuts `0..length` into the fewest pieces of at most `most`, none longer than another by more than `unit`.
fn pieces(length: usize, most: usize, unit: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let (units, count) = (length.div_ceil(unit), length.div_ceil(most).max(1));
    (0..count).map(move |i| (i * units / count * unit)..((i + 1) * units / count * unit).min(length))
}

/// The result, shared by the tasks that write its tiles.
#[derive(Clone, Copy)]
struct Output {
    start: *mut f32,
    stride: usize,
}

// SAFETY: tasks write disjoint tiles of it.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// `out [m, n] = a [m, k] · b [k, n]`, or added to what is there.
///
/// # Safety
/// The processor must have the instructions of `Level::Avx512`.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn product(
    out: &mut [f32],
    a: Strided<'_>,
    b: Strided<'_>,
    [m, k, n]: [usize; 3],
    store: Store,
    sharing: Sharing,
) {
    if is_done(out, a, b, [m, k, n], store) {
        return;
    }
    let operations = sharing.operations(m * n * k / LANES);
    let shared = parallel::is_worth_sharing(operations);
    let out = Output { start: out.as_mut_ptr(), stride: n };
    with_buffer(&PACKED_A, m * k, |packed| {
        let panels = m.div_ceil(HEIGHT);
        let mut rest = &mut packed[..m * k];
        let mut tasks = Vec::new();
        for chunk in pieces(k, CHUNK, 1) {
            for band in pieces(panels, panels.div_ceil(if shared { BLOCKS } else { 1 }), 1) {
                let rows: usize = pieces(m, HEIGHT, 1).skip(band.start).take(band.len()).map(|rows| rows.len()).sum();
                let (to, after) = rest.split_at_mut(rows * chunk.len());
                rest = after;
                tasks.push((chunk.clone(), band, to));
            }
        }
        parallel::for_each(tasks, if shared { operations } else { 0 }, |(chunk, band, to)| {
            pack_columns(a.transposed(), chunk, m, band, to);
        });
        let packed = &*packed;
        // SAFETY: the caller vouches for the processor; blocks are disjoint, and all lie in the result.
        let compute = |panels, columns| unsafe { block(out, packed, b, [m, k], panels, columns, store) };
        if !shared {
            pieces(n, BLOCK, WIDTH).for_each(|columns| compute(0..panels, columns));
            return;
        }
        let columns: Vec<_> = pieces(n, BLOCK, WIDTH).collect();
        // Narrow results are shared out by rows too.
        let bands = (BLOCKS / columns.len()).clamp(1, panels);
        let bands = pieces(panels, panels.div_ceil(bands), 1);
        let blocks = bands.flat_map(|panels| columns.iter().map(move |columns| (panels.clone(), columns.clone())));
        parallel::for_each(blocks.collect(), operations, |(panels, columns)| compute(panels, columns));
    });
}

/// Computes the columns `columns` of the given panels of rows.
///
/// # Safety
/// `out` must hold these rows and columns, and nobody else may read or write them. The processor must have AVX-512.
#[target_feature(enable = "avx512f")]
unsafe fn block(
    out: Output,
    packed_a: &[f32],
    b: Strided<'_>,
    [m, k]: [usize; 2],
    panels: Range<usize>,
    columns: Range<usize>,
    store: Store,
) {
    let length = columns.len().next_multiple_of(WIDTH) * k.min(CHUNK);
    with_buffer(&PACKED_B, length, |packed_b| {
        for chunk in pieces(k, CHUNK, 1) {
            let terms = chunk.len();
            let store = if chunk.start > 0 { Store::Add } else { store };
            pack_panels(b, chunk.clone(), columns.clone(), packed_b);
            for start in columns.clone().step_by(WIDTH) {
                let count = WIDTH.min(columns.end - start);
                let panel = &packed_b[(start - columns.start) * terms..][..terms * WIDTH];
                for rows in pieces(m, HEIGHT, 1).skip(panels.start).take(panels.len()) {
                    let a = &packed_a[chunk.start * m + rows.start * terms..][..rows.len() * terms];
                    // SAFETY: the tile lies in the block, which is ours.
                    let tile = unsafe { out.start.add(rows.start * out.stride + start) };
                    let task = Tile { a, b: panel, terms, out: tile, stride: out.stride, count, store };
                    // SAFETY: `a` holds `terms` columns of the panel's rows, `b` that many rows of 32 numbers, and the
                    // tile has this size.
                    unsafe { task.compute(rows.len()) };
                }
            }
        }
    });
}

/// One tile of the result and what it is a product of.
struct Tile<'a> {
    /// `[terms, height]`.
    a: &'a [f32],
    /// `[terms, 32]`.
    b: &'a [f32],
    terms: usize,
    /// The first element.
    out: *mut f32,
    stride: usize,
    /// How many columns.
    count: usize,
    store: Store,
}

impl Tile<'_> {
    /// # Safety
    /// The operands must hold what [`block`] says, and the tile of `height` rows must be the caller's alone.
    #[target_feature(enable = "avx512f")]
    unsafe fn compute(self, height: usize) {
        macro_rules! by_height {
            ($($height:literal)+) => {
                match (height, self.count > LANES) {
                    $(
                        // SAFETY: passed on.
                        ($height, true) => unsafe { self.compute_as::<$height, 2>() },
                        // SAFETY: passed on.
                        ($height, false) => unsafe { self.compute_as::<$height, 1>() },
                    )+
                    _ => unreachable!("a tile of {height} rows"),
                }
            };
        }
        by_height!(1 2 3 4 5 6 7 8 9 10 11 12);
    }

    /// # Safety
    /// As for [`Tile::compute`].
    #[target_feature(enable = "avx512f")]
    unsafe fn compute_as<const H: usize, const REGISTERS: usize>(self) {
        debug_assert!(self.a.len() == self.terms * H);
        let mask = |register: usize| first(self.count.saturating_sub(register * LANES));
        let masks: [__mmask16; REGISTERS] = std::array::from_fn(mask);
        for row in 0..H {
            let start = self.out.wrapping_add(row * self.stride);
            for column in [0, self.count / 2, self.count - 1] {
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(column).cast());
            }
        }
        let mut sums = [[_mm512_set1_ps(0.0); REGISTERS]; H];
        let (mut a, mut b) = (self.a.as_ptr(), self.b.as_ptr());
        for _ in 0..self.terms {
            let mut right = [_mm512_set1_ps(0.0); REGISTERS];
            for register in 0..REGISTERS {
                // SAFETY: masked lanes are not read, the others are the row's.
                right[register] = unsafe { _mm512_maskz_loadu_ps(masks[register], b.add(register * LANES)) };
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `a` holds H numbers for every term.
                let left = _mm512_set1_ps(unsafe { *a.add(row) });
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm512_fmadd_ps(left, right, *sum);
                }
            }
            (a, b) = (a.wrapping_add(H), b.wrapping_add(WIDTH));
        }
        for (row, sums) in sums.iter().enumerate() {
            for register in 0..REGISTERS {
                // SAFETY: in the tile, as far as the mask goes.
                unsafe {
                    let to = self.out.add(row * self.stride + register * LANES);
                    let sum = match self.store {
                        Store::Write => sums[register],
                        Store::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(masks[register], to), sums[register]),
                    };
                    _mm512_mask_storeu_ps(to, masks[register], sum);
                }
            }
        }
    }
}

/// The first `count` lanes; all if there are more.
fn first(count: usize) -> __mmask16 {
    if count >= LANES { !0 } else { (1 << count) - 1 }
}

/// Packs the columns `columns` of a chunk in panels `[terms, 32]`; columns past the end are zero or arbitrary.
#[target_feature(enable = "avx512f")]
fn pack_panels(b: Strided<'_>, chunk: Range<usize>, columns: Range<usize>, to: &mut [f32]) {
    let terms = chunk.len();
    let panel = |index: usize| index * WIDTH * terms;
    if b.column == 1 {
        // Term by term: the numbers of one lie side by side.
        for (term, k) in chunk.enumerate() {
            let next = b.numbers.as_ptr().wrapping_add((k + 2) * b.row + columns.start);
            for column in (0..columns.len()).step_by(LANES) {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(column).cast());
            }
            let from = &b.numbers[k * b.row + columns.start..][..columns.len()];
            for (index, from) in from.chunks(WIDTH).enumerate() {
                copy(from, &mut to[panel(index) + term * WIDTH..][..from.len()]);
            }
        }
    } else {
        for (index, start) in columns.clone().step_by(WIDTH).enumerate() {
            let here = start..columns.end.min(start + WIDTH);
            pack_rows(b, chunk.clone(), here, WIDTH, &mut to[panel(index)..][..terms * WIDTH]);
        }
    }
}

/// Copies numbers register by register: a call into the C library would cost more for so few.
#[inline]
#[target_feature(enable = "avx512f")]
fn copy(from: &[f32], to: &mut [f32]) {
    for (from, to) in from.chunks(LANES).zip(to.chunks_mut(LANES)) {
        let mask = first(from.len().min(to.len()));
        // SAFETY: the mask ends with both.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, _mm512_maskz_loadu_ps(mask, from.as_ptr())) };
    }
}

/// Packs the terms `chunk` of the columns of `m` that are in `band`, some panels `[terms, height]`.
#[target_feature(enable = "avx512f")]
fn pack_columns(from: Strided<'_>, chunk: Range<usize>, m: usize, band: Range<usize>, to: &mut [f32]) {
    /// So many terms of all columns stay in the first-level cache while panels take their parts of them.
    const TERMS: usize = 8;
    let terms = chunk.len();
    let panels = pieces(m, HEIGHT, 1).skip(band.start).take(band.len());
    let first = panels.clone().next().map_or(0, |columns| columns.start);
    if from.column == 1 {
        for start in chunk.clone().step_by(TERMS) {
            for columns in panels.clone() {
                for k in start..chunk.end.min(start + TERMS) {
                    let at = (columns.start - first) * terms + (k - chunk.start) * columns.len();
                    copy(&from.numbers[k * from.row + columns.start..][..columns.len()], &mut to[at..]);
                }
            }
        }
    } else {
        for columns in panels {
            let to = &mut to[(columns.start - first) * terms..(columns.end - first) * terms];
            pack_rows(from, chunk.clone(), columns.clone(), columns.len(), to);
        }
    }
}

/// Packs `columns`, each of whose terms lie side by side, as `[terms, width]`.
#[target_feature(enable = "avx512f")]
fn pack_rows(from: Strided<'_>, chunk: Range<usize>, columns: Range<usize>, width: usize, to: &mut [f32]) {
    assert!(from.row == 1 && from.fits(chunk.end, columns.end), "packing: terms side by side");
    assert!(columns.len() <= width && to.len() >= chunk.len() * width, "packing: room for {chunk:?}");
    let terms = chunk.len();
    for first_column in (0..columns.len()).step_by(LANES) {
        let count = LANES.min(columns.len() - first_column);
        for first_term in (0..terms).step_by(LANES) {
            let here = LANES.min(terms - first_term);
            let mut square = [_mm512_set1_ps(0.0); LANES];
            for (i, register) in square.iter_mut().take(count).enumerate() {
                let at = (columns.start + first_column + i) * from.column + chunk.start + first_term;
                // SAFETY: the mask ends with the chunk, which lies in the slice.
                *register = unsafe { _mm512_maskz_loadu_ps(first(here), from.numbers.as_ptr().add(at)) };
            }
            let square = transpose_registers(square);
            for (j, register) in square.into_iter().take(here).enumerate() {
                let at = (first_term + j) * width + first_column;
                // SAFETY: the mask ends with the columns, which fit into `width`.
                unsafe {
                    let to = to.as_mut_ptr().add(at);
                    if count == LANES {
                        _mm512_storeu_ps(to, register);
                    } else {
                        _mm512_mask_storeu_ps(to, first(count), register);
                    }
                }
            }
        }
    }
}
