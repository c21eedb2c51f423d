//! Kernels against their own naive versions: `cargo bench -p spdflow-kernels`, or one of them with `--bench kernels
//! -- attention`.
//!
//! One thread, best of several rounds, nanoseconds per element of the stated unit. The naive version is the formula in
//! plain scalar code.

use std::hint::black_box;
use std::time::Instant;

use spdflow_kernels::attention::{self, Shape};
use spdflow_kernels::ci_mlp::{self, WeightGradients, Weights};
use spdflow_kernels::masked_site::{self, Gradients, Inputs, Mask};
use spdflow_kernels::philox::{Stream, block, uniform};
use spdflow_kernels::sigmoid::{self, Sigmoid};
use spdflow_kernels::{Store, linear};

fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("a thread pool");
    println!("{:34} {:>12} {:>12} {:>8}", "kernel", "ours ns", "naive ns", "ratio");
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let sizes = [(20, 944), (200, 3564)];
    let benches: [(&str, &dyn Fn()); 6] = [
        ("ci_mlp", &|| sizes.into_iter().for_each(|(components, rows)| bench_ci_mlp(components, rows))),
        ("masked_site", &|| sizes.into_iter().for_each(|(components, rows)| bench_masked_site(components, rows))),
        ("philox", &bench_philox),
        ("sigmoid", &bench_sigmoid),
        ("linear", &bench_linear),
        ("attention", &bench_attention),
    ];
    for (_, bench) in benches.iter().filter(|(name, _)| name.contains(&wanted)) {
        bench();
    }
}

/// Returns `n` numbers in [-2, 2).
fn values(seed: u32, n: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    uniform(Stream { seed: 1, purpose: seed, step: 0, index: 0 }, n, &[0], &mut x);
    x.iter().map(|u| 4.0 * u - 2.0).collect()
}

/// Returns the best time of a call in nanoseconds.
fn best(mut call: impl FnMut()) -> f64 {
    call();
    let round = |call: &mut dyn FnMut()| {
        let began = Instant::now();
        call();
        began.elapsed().as_secs_f64() * 1e9
    };
    (0..15).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min)
}

fn report(name: &str, units: usize, ours: f64, naive: f64) {
    let per = |time: f64| time / units as f64;
    println!("{name:34} {:12.3} {:12.3} {:8.1}", per(ours), per(naive), naive / ours);
}

/// The error function to 1.5e-7 (Abramowitz and Stegun 7.1.26), in scalar code.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let p = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - p * (-x * x).exp()).copysign(x)
}

fn bench_ci_mlp(components: usize, rows: usize) {
    const HIDDEN: usize = 16;
    let (x, g) = (values(1, components * rows), values(2, components * rows));
    let (w1, b1, w2) = (values(3, components * HIDDEN), values(4, components * HIDDEN), values(5, components * HIDDEN));
    let b2 = values(6, components);
    let weights = Weights { w1: &w1, b1: &b1, w2: &w2, b2: &b2 };
    let units = components * rows * HIDDEN;
    let mut out = vec![0.0; x.len()];
    let ours = best(|| ci_mlp::forward(black_box(&x), weights, &mut out, rows));
    let naive = best(|| {
        for c in 0..components {
            for r in 0..rows {
                let mut z = b2[c];
                for h in c * HIDDEN..(c + 1) * HIDDEN {
                    let a = black_box(&x)[c * rows + r] * w1[h] + b1[h];
                    z += w2[h] * 0.5 * a * (1.0 + erf(a * std::f32::consts::FRAC_1_SQRT_2));
                }
                out[c * rows + r] = z;
            }
        }
    });
    report(&format!("ci_mlp forward  C={components} R={rows}"), units, ours, naive);
    let mut grad_x = vec![0.0; x.len()];
    let (mut gw1, mut gb1, mut gw2, mut gb2) =
        (vec![0.0; w1.len()], vec![0.0; w1.len()], vec![0.0; w1.len()], vec![0.0; components]);
    let ours = best(|| {
        let grads = WeightGradients { w1: &mut gw1, b1: &mut gb1, w2: &mut gw2, b2: &mut gb2 };
        ci_mlp::backward(black_box(&x), weights, &g, Some((&mut grad_x, Store::Add)), grads, rows);
    });
    let naive = best(|| {
        for c in 0..components {
            for r in 0..rows {
                let (x, g) = (black_box(&x)[c * rows + r], g[c * rows + r]);
                for h in c * HIDDEN..(c + 1) * HIDDEN {
                    let a = x * w1[h] + b1[h];
                    let cdf = 0.5 * (1.0 + erf(a * std::f32::consts::FRAC_1_SQRT_2));
                    let slope = cdf + a * 0.398_942_3 * (-0.5 * a * a).exp();
                    gw2[h] += g * a * cdf;
                    gw1[h] += g * w2[h] * slope * x;
                    gb1[h] += g * w2[h] * slope;
                    grad_x[c * rows + r] += g * w2[h] * slope * w1[h];
                }
                gb2[c] += g;
            }
        }
    });
    report(&format!("ci_mlp backward C={components} R={rows}"), units, ours, naive);
}

fn bench_masked_site(components: usize, rows: usize) {
    let d_out = if components == 20 { 5 } else { 40 };
    let (a, m, u) = (values(1, components * rows), values(2, components * rows), values(3, components * d_out));
    let (t, d, g) = (values(4, d_out * rows), values(5, rows), values(6, d_out * rows));
    let inputs = Inputs {
        rows,
        activations: &a,
        mask: Mask::Full(&m),
        u: &u,
        frozen: Some(&t),
        delta_mask: Some(&d),
        routing: None,
        bias: None,
    };
    let units = components * rows;
    let mut out = vec![0.0; d_out * rows];
    let ours = best(|| masked_site::forward(black_box(inputs), &mut out));
    let naive = best(|| {
        for o in 0..d_out {
            for r in 0..rows {
                let mut y = d[r] * t[o * rows + r];
                for c in 0..components {
                    y += black_box(&a)[c * rows + r] * (m[c * rows + r] - d[r]) * u[c * d_out + o];
                }
                out[o * rows + r] = y;
            }
        }
    });
    report(&format!("masked_site forward  C={components}"), units, ours, naive);
    let (mut ga, mut gm, mut gu) = (vec![0.0; a.len()], vec![0.0; a.len()], vec![0.0; u.len()]);
    let ours = best(|| {
        let grads = Gradients {
            activations: Some((&mut ga, Store::Add)),
            mask: Some((&mut gm, Store::Add)),
            u: Some((&mut gu, Store::Add)),
            ..Gradients::default()
        };
        masked_site::backward(black_box(inputs), &g, grads);
    });
    let naive = best(|| {
        for c in 0..components {
            for r in 0..rows {
                let (a, m) = (black_box(&a)[c * rows + r], m[c * rows + r] - d[r]);
                let mut worth = 0.0;
                for o in 0..d_out {
                    worth += u[c * d_out + o] * g[o * rows + r];
                    gu[c * d_out + o] += a * m * g[o * rows + r];
                }
                ga[c * rows + r] += m * worth;
                gm[c * rows + r] += a * worth;
            }
        }
    });
    report(&format!("masked_site backward C={components}"), units, ours, naive);
}

fn bench_philox() {
    let rows: Vec<u32> = (0..4096).collect();
    let mut out = vec![0.0; 200 * rows.len()];
    let stream = Stream { seed: 1, purpose: 2, step: 3, index: 4 };
    let ours = best(|| uniform(black_box(stream), 200, &rows, &mut out));
    let naive = best(|| {
        for f in (0..200).step_by(4) {
            for r in 0..rows.len() {
                let words = block([rows[r], f as u32 / 4, 3, 0], [black_box(1), 2]);
                for (j, word) in words.iter().enumerate() {
                    out[(f + j) * rows.len() + r] = (word >> 8) as f32 / 16_777_216.0;
                }
            }
        }
    });
    report("philox uniform", out.len(), ours, naive);
}

fn bench_sigmoid() {
    let x = values(1, 1 << 20);
    let mut out = vec![0.0; x.len()];
    let function = Sigmoid::LowerLeakyHard { alpha: 0.01 };
    let ours = best(|| sigmoid::forward(function, black_box(&x), &mut out));
    let naive = best(|| x.iter().zip(&mut out).for_each(|(x, out)| *out = black_box(function).value(*x)));
    report("sigmoid forward", x.len(), ours, naive);
}

fn bench_linear() {
    for (m, n, rows) in [(20, 5, 944), (200, 40, 3564), (50, 1000, 1290)] {
        let (w, x) = (values(1, m * n), values(2, n * rows));
        let mut y = vec![0.0; m * rows];
        let ours = best(|| linear::apply(black_box(&w), &x, &mut y, [m, n, rows], Store::Add));
        let naive = best(|| {
            for i in 0..m {
                for r in 0..rows {
                    y[i * rows + r] += (0..n).map(|j| black_box(&w)[i * n + j] * x[j * rows + r]).sum::<f32>();
                }
            }
        });
        report(&format!("linear {m}x{n} R={rows}"), m * n * rows, ours, naive);
    }
}

/// One unit is a feature of a key that a query looks at.
fn bench_attention() {
    let shape = Shape { heads: 1, d_head: 16, sequences: 33, length: 64 };
    let (rows, d, length) = (shape.sequences * shape.length, shape.d_head, shape.length);
    let [q, k, v, g] = [1, 2, 3, 4].map(|seed| values(seed, shape.elements()));
    let units = shape.elements() * (length + 1) / 2;
    let mut out = vec![0.0; q.len()];
    let ours = best(|| attention::forward(black_box(&q), &k, &v, &mut out, shape));
    // The probabilities of query `i` of the sequence that starts at row `start`.
    let attend = |start: usize, i: usize, p: &mut [f32]| {
        for (j, p) in p.iter_mut().enumerate() {
            let score: f32 = (0..d).map(|f| q[f * rows + start + i] * k[f * rows + start + j]).sum();
            *p = score / (d as f32).sqrt();
        }
        let most = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        p.iter_mut().for_each(|p| *p = (*p - most).exp());
        let sum: f32 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
    };
    let mut p = vec![0.0; length];
    let naive = best(|| {
        for start in (0..rows).step_by(length) {
            for i in 0..length {
                attend(start, i, &mut p[..=i]);
                for f in 0..d {
                    out[f * rows + start + i] += (0..=i).map(|j| p[j] * v[f * rows + start + j]).sum::<f32>();
                }
            }
        }
    });
    report("attention forward  d=16 length=64", units, ours, naive);
    let [mut grad_q, mut grad_k, mut grad_v] = [0; 3].map(|_| vec![0.0; q.len()]);
    let ours = best(|| {
        let grads = attention::Gradients { q: Some(&mut grad_q), k: Some(&mut grad_k), v: Some(&mut grad_v) };
        attention::backward(black_box(&q), &k, &v, &g, grads, shape);
    });
    let mut slopes = vec![0.0; length];
    let naive = best(|| {
        for start in (0..rows).step_by(length) {
            for i in 0..length {
                attend(start, i, &mut p[..=i]);
                let at = |f: usize, position: usize| f * rows + start + position;
                for j in 0..=i {
                    slopes[j] = (0..d).map(|f| g[at(f, i)] * v[at(f, j)]).sum::<f32>();
                }
                let mean: f32 = (0..=i).map(|j| p[j] * slopes[j]).sum();
                for j in 0..=i {
                    let slope = p[j] * (slopes[j] - mean) / (d as f32).sqrt();
                    for f in 0..d {
                        grad_q[at(f, i)] += slope * k[at(f, j)];
                        grad_k[at(f, j)] += slope * q[at(f, i)];
                        grad_v[at(f, j)] += p[j] * g[at(f, i)];
                    }
                }
            }
        }
    });
    report("attention backward d=16 length=64", units, ours, naive);
}
