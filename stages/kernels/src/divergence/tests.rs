//! Both losses against f64, their gradients against finite differences.

use super::*;
use crate::testing::{assert_close, slopes, values, wide};

const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 0), (4, 1), (7, 17), (130, 5), (3, 300)];

fn log_softmax(x: &[f64], rows: usize) -> Vec<f64> {
    let z = |r: usize| x.iter().skip(r).step_by(rows).map(|x| x.exp()).sum::<f64>().ln();
    let z: Vec<f64> = (0..rows).map(z).collect();
    x.iter().enumerate().map(|(i, x)| x - z[i % rows]).collect()
}

fn exact_kl(p: &[f64], t: &[f64], rows: usize) -> f64 {
    log_softmax(t, rows).iter().zip(log_softmax(p, rows)).map(|(t, p)| t.exp() * (t - p)).sum()
}

#[test]
fn the_divergence_and_its_gradient_are_exact() {
    for (count, rows) in SHAPES {
        let (p, t) = (values(1, count * rows), values(2, count * rows));
        let (value, normalisers) = kl_forward(&p, &t, rows);
        let expected = exact_kl(&wide(&p), &wide(&t), rows);
        // Differences of f32 logits are rounded to f32: 6 · 6e-8 each, rows of them.
        assert!((value - expected).abs() <= 4e-7 * rows as f64, "{value} {expected}");
        if rows == 300 {
            continue; // Finite differences of so many coordinates take too long.
        }
        let mut grad = vec![0.0; p.len()];
        kl_backward(&p, &t, &normalisers, 0.5, &mut grad, rows);
        let slopes = slopes(&p, |p| 0.5 * exact_kl(p, &wide(&t), rows));
        assert_close("gradient", &grad, &slopes, 1e-6, 1e-6);
    }
}

#[test]
fn equal_logits_diverge_by_nothing_and_a_shift_changes_nothing() {
    let p = values(1, 60);
    assert!(kl_forward(&p, &p, 4).0.abs() < 1e-14);
    let shifted: Vec<f32> = p.iter().map(|x| x + 64.0).collect();
    assert!(kl_forward(&shifted, &p, 4).0.abs() < 1e-4, "f32 keeps 1e-5 of the shifted logits");
}

#[test]
fn the_divergence_of_two_coins_is_the_known_one() {
    // KL((1/2, 1/2) ‖ (1/4, 3/4)) = ½ ln 2 + ½ ln ⅔ = ½ ln 4/3.
    let (value, _) = kl_forward(&[0.0, 3.0_f32.ln()], &[0.0, 0.0], 1);
    assert!((value - 0.5 * (4.0_f64 / 3.0).ln()).abs() < 1e-7, "{value}");
}

#[test]
fn a_logit_that_is_no_number_makes_the_losses_no_numbers() {
    let broken = [0.0, f32::NAN, 1.0];
    assert!(kl_forward(&broken, &[0.0; 3], 1).0.is_nan());
    assert!(kl_forward(&[0.0; 3], &broken, 1).0.is_nan());
    assert!(cross_entropy_forward(&broken, &[0.0]).0.is_nan());
}

#[test]
fn cross_entropy_and_its_gradient_are_exact_and_skip_rows_without_label() {
    for (count, rows) in SHAPES {
        let x = values(3, count * rows);
        let labels: Vec<f32> = (0..rows).map(|r| if r % 3 == 1 { -1.0 } else { (r * 5 % count) as f32 }).collect();
        let exact = |x: &[f64]| -> f64 {
            let logs = log_softmax(x, rows);
            (0..rows).filter(|r| labels[*r] >= 0.0).map(|r| -logs[labels[r] as usize * rows + r]).sum()
        };
        let (value, normalisers) = cross_entropy_forward(&x, &labels);
        assert!((value - exact(&wide(&x))).abs() <= 4e-7 * rows as f64);
        if rows == 300 {
            continue;
        }
        let mut grad = vec![0.0; x.len()];
        cross_entropy_backward(&x, &labels, &normalisers, 2.0, &mut grad);
        assert_close("gradient", &grad, &slopes(&x, |x| 2.0 * exact(x)), 2e-6, 2e-6);
    }
}

#[cfg(feature = "cuda")]
#[test]
fn the_twins_agree() {
    use crate::testing::{cuda_device, from_device, on_device, unwritten};
    let device = cuda_device(crate::cuda::MODULES);
    for (count, rows) in SHAPES.into_iter().chain([(1000, 33), (515, 64)]) {
        // Large logits first, so that the sums refer to new maxima all the time, and in other rows never.
        let spread = |seed: u64| -> Vec<f32> {
            let grow = |(i, x): (usize, f32)| if i % rows % 2 == 0 { 5.0 * x + (i / rows) as f32 / 20.0 } else { x };
            values(seed, count * rows).into_iter().enumerate().map(grow).collect()
        };
        let (p, t, held) = (spread(1), spread(2), values(3, count * rows));
        let [p_there, t_there, g] = [&p[..], &t, &[0.7]].map(|data| on_device(&device, data));
        let (mut out, mut normalisers_there) = (unwritten(&device, 1), unwritten(&device, 2 * rows));
        let (value, normalisers) = kl_forward(&p, &t, rows);
        cuda::kl_forward(&p_there, &t_there, &mut out, &mut normalisers_there, rows).expect("a launch");
        // The CPU rounds differences of logits up to 100 to f32: 6e-6 each; the result is rounded once.
        assert_close("kl", &from_device(&out), &[value], 1e-6, 1.2e-5 * rows as f64);
        assert_close("normalisers", &from_device(&normalisers_there), &wide(&normalisers), 2e-7, 6e-6);
        let (mut here, mut there) = (held.clone(), on_device(&device, &held));
        kl_backward(&p, &t, &normalisers, 0.7, &mut here, rows);
        cuda::kl_backward(&p_there, &t_there, &normalisers_there, &g, &mut there, rows).expect("a launch");
        // Exponents differ by the normalisers' error.
        assert_close("kl gradient", &from_device(&there), &wide(&here), 1e-6, 1.2e-5);

        let labels: Vec<f32> = (0..rows).map(|r| if r % 3 == 1 { -1.0 } else { (r * 5 % count) as f32 }).collect();
        let labels_there = on_device(&device, &labels);
        let mut normalisers_there = unwritten(&device, rows);
        let (value, normalisers) = cross_entropy_forward(&p, &labels);
        cuda::cross_entropy_forward(&p_there, &labels_there, &mut out, &mut normalisers_there).expect("a launch");
        assert_close("cross entropy", &from_device(&out), &[value], 1e-6, 6e-6 * rows as f64);
        assert_close("normalisers", &from_device(&normalisers_there), &wide(&normalisers), 2e-7, 6e-6);
        let (mut here, mut there) = (held.clone(), on_device(&device, &held));
        cross_entropy_backward(&p, &labels, &normalisers, 0.7, &mut here);
        cuda::cross_entropy_backward(&p_there, &labels_there, &normalisers_there, &g, &mut there).expect("a launch");
        assert_close("cross entropy gradient", &from_device(&there), &wide(&here), 1e-6, 1.2e-5);
    }
}

#[cfg(feature = "cuda")]
#[test]
fn what_is_no_number_and_what_is_no_label_show_on_a_gpu() {
    use crate::testing::{cuda_device, from_device, on_device, unwritten};
    let device = cuda_device(crate::cuda::MODULES);
    let [broken, fine] = [[0.0, f32::NAN, 1.0], [0.0; 3]].map(|logits| on_device(&device, &logits));
    let (mut out, mut two, mut one) = (unwritten(&device, 1), unwritten(&device, 2), unwritten(&device, 1));
    for (p, t) in [(&broken, &fine), (&fine, &broken)] {
        cuda::kl_forward(p, t, &mut out, &mut two, 1).expect("a launch");
        assert!(from_device(&out)[0].is_nan());
    }
    for (logits, label, is_number) in
        [(&fine, 2.0, true), (&broken, 0.0, false), (&fine, 3.0, false), (&fine, 0.5, false)]
    {
        let label = on_device(&device, &[label]);
        cuda::cross_entropy_forward(logits, &label, &mut out, &mut one).expect("a launch");
        assert_eq!(!from_device(&out)[0].is_nan(), is_number);
    }
}
