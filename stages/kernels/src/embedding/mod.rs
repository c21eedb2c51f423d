//! Looking up rows of a table: `y[f, r] = table[token(r), f]` (an embedding, and V of an embedding's components).
//!
//! `table [vocab, d]`, tokens `[R]` as f32 (they travel with the other activations; f32 counts exactly up to 2²⁴),
//! `y [d, R]`. The gradient adds each position's to its token's row, positions in order.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::parallel;

/// Writes the looked-up rows.
///
/// # Panics
/// If a length does not fit or a token is not in the table.
pub fn forward(table: &[f32], tokens: &[f32], out: &mut [f32], d: usize) {
    let rows = tokens.len();
    let vocab = checked(table.len(), d, out.len(), rows);
    let tokens = indices(tokens, vocab);
    parallel::for_each_row(out, rows, d * rows, |f, out| {
        for (out, token) in out.iter_mut().zip(&tokens) {
            *out = table[*token as usize * d + f];
        }
    });
}

/// Adds each position's gradient to the row of its token.
///
/// # Panics
/// If a length does not fit or a token is not in the table.
pub fn backward(tokens: &[f32], grad_out: &[f32], grad_table: &mut [f32], d: usize) {
    let rows = tokens.len();
    let vocab = checked(grad_table.len(), d, grad_out.len(), rows);
    if d == 0 || vocab == 0 {
        return;
    }
    let tokens = indices(tokens, vocab);
    // Feature by feature, so that tasks write to slices of their own.
    let mut by_feature = vec![0.0; d * vocab];
    parallel::for_each_row(&mut by_feature, vocab, d * rows, |f, sums| {
        for (token, grad) in tokens.iter().zip(&grad_out[f * rows..(f + 1) * rows]) {
            sums[*token as usize] += grad;
        }
    });
    for (token, grad) in grad_table.chunks_mut(d).enumerate() {
        for (f, grad) in grad.iter_mut().enumerate() {
            *grad += by_feature[f * vocab + token];
        }
    }
}

fn checked(table: usize, d: usize, out: usize, rows: usize) -> usize {
    let vocab = table.checked_div(d).unwrap_or(0);
    assert_eq!((table, out), (vocab * d, d * rows), "embedding: table of {d} features, {rows} rows");
    vocab
}

fn indices(tokens: &[f32], vocab: usize) -> Vec<u32> {
    let index = |token: &f32| {
        let index = *token as u32;
        assert!(index as f32 == *token && (index as usize) < vocab, "token {token} is not one of 0..{vocab}");
        index
    };
    tokens.iter().map(index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, slopes, values};

    #[test]
    fn positions_read_the_rows_of_their_tokens() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut out = [0.0; 8];
        forward(&table, &[2.0, 0.0, 2.0, 1.0], &mut out, 2);
        assert_eq!(out, [5.0, 1.0, 5.0, 3.0, 6.0, 2.0, 6.0, 4.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for (vocab, d, rows) in [(1, 1, 0), (1, 1, 1), (7, 3, 17), (5, 16, 100)] {
            let tokens: Vec<f32> = (0..rows).map(|r| ((r * r + 3) % vocab) as f32).collect();
            let (table, upstream) = (values(1, vocab * d), values(2, d * rows));
            let exact = |table: &[f64]| -> f64 {
                let term = |f: usize, r: usize| f64::from(upstream[f * rows + r]) * table[tokens[r] as usize * d + f];
                (0..d).flat_map(|f| (0..rows).map(move |r| (f, r))).map(|(f, r)| term(f, r)).sum()
            };
            let mut grad = vec![0.0; table.len()];
            backward(&tokens, &upstream, &mut grad, d);
            // Sums of at most 100 terms up to 3.
            assert_close("table", &grad, &slopes(&table, exact), 1e-6, 1e-4);
        }
    }

    #[test]
    #[should_panic(expected = "token 3 is not one of 0..3")]
    fn a_token_beyond_the_table_is_our_mistake() {
        forward(&[0.0; 6], &[3.0], &mut [0.0; 2], 2);
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_twins_agree() {
        use crate::testing::{cuda_device, from_device, on_device, unwritten, wide};
        let device = cuda_device(crate::cuda::MODULES);
        // The last two have several chunks, and several spans in one chunk.
        let shapes =
            [(1, 1, 0), (3, 0, 4), (1, 1, 1), (7, 3, 17), (5, 33, 100), (31, 64, 67), (5, 40, 5000), (1030, 2, 4100)];
        for (vocab, d, rows) in shapes {
            let tokens: Vec<f32> = (0..rows).map(|r| ((r * r + 3) % vocab) as f32).collect();
            let (table, upstream) = (values(1, vocab * d), values(2, d * rows));
            let [table_there, tokens_there, upstream_there] =
                [&table, &tokens, &upstream].map(|x| on_device(&device, x));
            if d > 0 {
                let (mut here, mut there) = (vec![f32::NAN; d * rows], unwritten(&device, d * rows));
                forward(&table, &tokens, &mut here, d);
                cuda::forward(&table_there, &tokens_there, &mut there, d).expect("a launch");
                assert_eq!(here, from_device(&there));
            }
            let (mut here, mut there) = (table.clone(), on_device(&device, &table));
            backward(&tokens, &upstream, &mut here, d);
            cuda::backward(&tokens_there, &upstream_there, &mut there, d).expect("a launch");
            // Up to 2000 terms up to 3 in two orders: sums that walk to about 100 and are rounded 6e-8 each time.
            assert_close("table", &from_device(&there), &wide(&here), 1e-6, 1e-6 * (1.0 + rows as f64 / vocab as f64));
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_token_beyond_the_table_shows_on_a_gpu() {
        use crate::testing::{cuda_device, from_device, on_device, unwritten};
        let device = cuda_device(crate::cuda::MODULES);
        let (table, tokens) = (on_device(&device, &[1.0, 2.0, 3.0]), [3.0, 1.0, -1.0, 0.5, f32::NAN]);
        let (tokens, mut out) = (on_device(&device, &tokens), unwritten(&device, 5));
        cuda::forward(&table, &tokens, &mut out, 1).expect("a launch");
        let known: Vec<bool> = from_device(&out).iter().map(|y| !y.is_nan()).collect();
        assert_eq!(known, [false, true, false, false, false]);
    }
}
