//! Positions of sequences: constants added to each of them, and the last one of each.
//!
//! Rows are the positions of one sequence after the other: row `s · length + p` is position p of sequence s.

#[cfg(feature = "cuda")]
pub mod cuda;

/// Writes `x[f, s·length + p] + constant[f, p]`: `x, out [d, R]`, `constant [d, length]`.
///
/// # Panics
/// If a length does not fit.
pub fn add_to_positions(x: &[f32], constant: &[f32], out: &mut [f32], rows: usize, length: usize) {
    let d = check(x.len(), rows, length);
    assert_eq!((out.len(), constant.len()), (d * rows, d * length), "positions of {d} features");
    for ((x, constant), out) in
        x.chunks(rows.max(1)).zip(constant.chunks(length.max(1))).zip(out.chunks_mut(rows.max(1)))
    {
        for (x, out) in x.chunks(length.max(1)).zip(out.chunks_mut(length.max(1))) {
            for ((x, constant), out) in x.iter().zip(constant).zip(out) {
                *out = x + constant;
            }
        }
    }
}

/// Returns the last position of each sequence, `[d, R / length]`.
///
/// # Panics
/// If a length does not fit.
#[must_use]
pub fn last(x: &[f32], rows: usize, length: usize) -> Vec<f32> {
    check(x.len(), rows, length);
    x.iter().skip(length - 1).step_by(length).copied().collect()
}

/// Adds the gradient of [`last`].
///
/// # Panics
/// If a length does not fit.
pub fn last_backward(grad_out: &[f32], grad_x: &mut [f32], rows: usize, length: usize) {
    check(grad_x.len(), rows, length);
    assert_eq!(grad_out.len() * length, grad_x.len(), "gradient of last positions");
    for (grad_x, grad_out) in grad_x.iter_mut().skip(length - 1).step_by(length).zip(grad_out) {
        *grad_x += grad_out;
    }
}

fn check(elements: usize, rows: usize, length: usize) -> usize {
    assert!(length > 0 && rows.is_multiple_of(length), "{rows} rows in sequences of {length}");
    elements.checked_div(rows).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_gets_the_same_constants() {
        let mut out = [0.0; 8];
        add_to_positions(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &[10.0, 20.0, 30.0, 40.0], &mut out, 4, 2);
        assert_eq!(out, [11.0, 22.0, 13.0, 24.0, 35.0, 46.0, 37.0, 48.0]);
    }

    #[test]
    fn last_positions_are_gathered_and_their_gradient_scattered() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0];
        assert_eq!(last(&x, 6, 3), [3.0, 6.0, 9.0, 12.0]);
        let mut grad = [1.0; 12];
        last_backward(&[2.0, 3.0, 4.0, 5.0], &mut grad, 6, 3);
        assert_eq!(grad, [1.0, 1.0, 3.0, 1.0, 1.0, 4.0, 1.0, 1.0, 5.0, 1.0, 1.0, 6.0]);
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_twins_agree_to_the_last_bit() {
        use crate::testing::{cuda_device, from_device, on_device, unwritten, values};
        let device = cuda_device(crate::cuda::MODULES);
        for (d, sequences, length) in [(1, 1, 1), (3, 0, 4), (0, 2, 3), (2, 5, 7), (5, 3, 8), (13, 31, 6)] {
            let rows = sequences * length;
            let (x, constant, upstream) = (values(1, d * rows), values(2, d * length), values(3, d * sequences));
            let [x_there, constant_there, upstream_there] = [&x, &constant, &upstream].map(|x| on_device(&device, x));
            if rows > 0 {
                let (mut here, mut there) = (vec![f32::NAN; x.len()], unwritten(&device, x.len()));
                add_to_positions(&x, &constant, &mut here, rows, length);
                cuda::add_to_positions(&x_there, &constant_there, &mut there, rows, length).expect("a launch");
                assert_eq!(here, from_device(&there));
            }
            let mut there = unwritten(&device, upstream.len());
            cuda::last(&x_there, &mut there, rows, length).expect("a launch");
            assert_eq!(last(&x, rows, length), from_device(&there));
            let (mut here, mut there) = (x.clone(), on_device(&device, &x));
            last_backward(&upstream, &mut here, rows, length);
            cuda::last_backward(&upstream_there, &mut there, rows, length).expect("a launch");
            assert_eq!(here, from_device(&there));
        }
    }
}
