//! Masked sites against the formula with the weight difference written out.

use super::*;
use crate::testing::{assert_close, slopes, values, wide};

#[derive(Clone, Copy, Debug)]
struct Case {
    components: usize,
    d_out: usize,
    rows: usize,
    /// 0 ones, 1 per component, 2 full.
    mask: u8,
    delta: bool,
    routing: bool,
}

/// The arguments in one slice: a, m, u, t, d.
fn lengths(case: Case) -> [usize; 5] {
    let Case { components: c, d_out: o, rows: r, .. } = case;
    [c * r, if case.mask == 1 { c } else { c * r }, c * o, o * r, r]
}

fn split<T>(at: &[T], lengths: [usize; 5]) -> [&[T]; 5] {
    let mut rest = at;
    lengths.map(|n| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head
    })
}

/// The first form of the formula, with the weight difference written out, in f64.
fn exact(at: &[f64], case: Case, routing: &[f64], bias: &[f64]) -> Vec<f64> {
    let [a, m, u, t, d] = split(at, lengths(case));
    let Case { components, d_out, rows, .. } = case;
    let mut y = vec![0.0; d_out * rows];
    for o in 0..d_out {
        for r in 0..rows {
            let part = |weight: &dyn Fn(usize) -> f64| {
                (0..components).map(|c| a[c * rows + r] * weight(c) * u[c * d_out + o]).sum::<f64>()
            };
            let masked = part(&|c| match case.mask {
                0 => 1.0,
                1 => m[c],
                _ => m[c * rows + r],
            });
            let delta = if case.delta { d[r] * (t[o * rows + r] - part(&|_| 1.0)) } else { 0.0 };
            let through = if case.routing && routing[r] == 0.0 { t[o * rows + r] } else { masked + delta };
            y[o * rows + r] = through + bias[o];
        }
    }
    y
}

fn check(case: Case) {
    let lengths = lengths(case);
    let at = values(9, lengths.iter().sum());
    let [a, m, u, t, d] = split(&at, lengths);
    let bias = values(10, case.d_out);
    let routing: Vec<f32> = (0..case.rows).map(|r| f32::from(r % 3 != 1)).collect();
    let inputs = Inputs {
        rows: case.rows,
        activations: a,
        mask: match case.mask {
            0 => Mask::Ones,
            1 => Mask::PerComponent(m),
            _ => Mask::Full(m),
        },
        u,
        frozen: Some(t),
        delta_mask: case.delta.then_some(d),
        routing: case.routing.then_some(&routing),
        bias: Some(&bias),
    };
    let mut y = vec![f32::NAN; case.d_out * case.rows];
    forward(inputs, &mut y);
    // C products of three numbers up to 3, rounded at 6e-8 each.
    let bound = 4e-6 * (case.components.max(1) as f64);
    assert_close(&format!("{case:?}"), &y, &exact(&wide(&at), case, &wide(&routing), &wide(&bias)), 1e-6, bound);

    let upstream = values(11, y.len());
    let loss = |at: &[f64]| {
        exact(at, case, &wide(&routing), &wide(&bias))
            .iter()
            .zip(&upstream)
            .map(|(y, g)| y * f64::from(*g))
            .sum::<f64>()
    };
    let expected = slopes(&at, loss);
    let mut grads = vec![0.0; at.len()];
    let mut rest = &mut grads[..];
    let [ga, gm, gu, gt, gd] = lengths.map(|n| {
        let (head, tail) = std::mem::take(&mut rest).split_at_mut(n);
        rest = tail;
        head
    });
    let wanted = Gradients {
        activations: Some(ga),
        mask: (case.mask != 0).then_some(gm),
        u: Some(gu),
        frozen: Some(gt),
        delta_mask: case.delta.then_some(gd),
    };
    backward(inputs, &upstream, wanted);
    let scale = 4e-6 * (case.components.max(case.rows).max(case.d_out) as f64);
    assert_close(&format!("gradients of {case:?}"), &grads, &expected, 2e-6, scale);
}

#[test]
fn outputs_and_gradients_match_the_written_out_formula() {
    for (components, d_out, rows) in [(1, 1, 1), (20, 5, 17), (3, 2, 64), (20, 27, 6)] {
        for mask in [0, 1, 2] {
            for (delta, routing) in [(false, false), (true, false), (false, true), (true, true)] {
                check(Case { components, d_out, rows, mask, delta, routing });
            }
        }
    }
}

#[test]
fn no_rows_and_no_components_are_fine() {
    check(Case { components: 0, d_out: 2, rows: 3, mask: 2, delta: false, routing: false });
    check(Case { components: 2, d_out: 2, rows: 0, mask: 2, delta: true, routing: true });
}

#[test]
fn masks_of_one_and_a_delta_mask_of_one_give_exactly_the_target() {
    let (a, u, t) = (values(1, 6 * 40), values(2, 6 * 3), values(3, 3 * 40));
    let (ones, delta) = (vec![1.0; 6 * 40], vec![1.0; 40]);
    let inputs = Inputs {
        rows: 40,
        activations: &a,
        mask: Mask::Full(&ones),
        u: &u,
        frozen: Some(&t),
        delta_mask: Some(&delta),
        routing: None,
        bias: None,
    };
    let mut y = vec![0.0; 3 * 40];
    forward(inputs, &mut y);
    assert_eq!(y, t);
}
