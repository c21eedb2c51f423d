//! Sums over the batch in a fixed order: sixteen lanes side by side, then a fixed tree.

/// How many partial sums run side by side; the width of an AVX-512 register, kept at every level for equal bits.
pub(crate) const LANES: usize = 16;

/// Adds the lanes pairwise: (0+8, 1+9, …), then halves again.
#[inline(always)]
pub(crate) fn tree_sum(lanes: &[f32; LANES]) -> f32 {
    let mut sums = *lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

/// Returns `Σ_r term(r)` over `0..rows`.
#[inline(always)]
pub(crate) fn sum_over(rows: usize, mut term: impl FnMut(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = rows - rows % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for row in whole..rows {
        lanes[row - whole] += term(row);
    }
    tree_sum(&lanes)
}
