//! Masked sites against the formula with the weight difference written out.

use super::*;
use crate::philox::uniform;
use crate::testing::{assert_close, slopes, values, wide};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ones,
    PerComponent,
    Full,
    BetweenGiven,
    BetweenShared,
    BetweenDrawn,
}

const KINDS: [Kind; 6] =
    [Kind::Ones, Kind::PerComponent, Kind::Full, Kind::BetweenGiven, Kind::BetweenShared, Kind::BetweenDrawn];

const STREAM: Stream = Stream { seed: 5, purpose: 1, step: 2, index: 3 };

#[derive(Clone, Copy, Debug)]
struct Case {
    components: usize,
    d_out: usize,
    rows: usize,
    mask: Kind,
    delta: bool,
    routing: bool,
}

/// The arguments in one slice: a, mask, u, t, d, importance, source.
fn lengths(case: Case) -> [usize; 7] {
    let Case { components: c, d_out: o, rows: r, mask, .. } = case;
    let given = match mask {
        Kind::PerComponent => c,
        Kind::Full => c * r,
        _ => 0,
    };
    let importance = if mask as u8 >= Kind::BetweenGiven as u8 { c * r } else { 0 };
    let source = match mask {
        Kind::BetweenGiven => c * r,
        Kind::BetweenShared => c,
        _ => 0,
    };
    [c * r, given, c * o, o * r, r, importance, source]
}

/// Every other row of the batch.
fn row_numbers(rows: usize) -> Vec<u32> {
    (0..rows as u32).map(|r| 2 * r).collect()
}

fn split<T>(at: &[T], lengths: [usize; 7]) -> [&[T]; 7] {
    let mut rest = at;
    lengths.map(|n| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head
    })
}

/// The first form of the formula, with the weight difference written out, in f64.
fn exact(at: &[f64], case: Case, routing: &[f64], bias: &[f64]) -> Vec<f64> {
    let [a, m, u, t, d, g, s] = split(at, lengths(case));
    let Case { components, d_out, rows, .. } = case;
    let mut drawn = vec![0.0; components * rows];
    uniform(STREAM, components, &row_numbers(rows), &mut drawn);
    let between = |at: usize, source: f64| g[at] + (1.0 - g[at]) * source;
    let mut y = vec![0.0; d_out * rows];
    for o in 0..d_out {
        for r in 0..rows {
            let part = |weight: &dyn Fn(usize) -> f64| {
                (0..components).map(|c| a[c * rows + r] * weight(c) * u[c * d_out + o]).sum::<f64>()
            };
            let masked = part(&|c| match case.mask {
                Kind::Ones => 1.0,
                Kind::PerComponent => m[c],
                Kind::Full => m[c * rows + r],
                Kind::BetweenGiven => between(c * rows + r, s[c * rows + r]),
                Kind::BetweenShared => between(c * rows + r, s[c]),
                Kind::BetweenDrawn => between(c * rows + r, f64::from(drawn[c * rows + r])),
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
    let [a, m, u, t, d, importance, s] = split(&at, lengths);
    let numbers = row_numbers(case.rows);
    let bias = values(10, case.d_out);
    let routing: Vec<f32> = (0..case.rows).map(|r| f32::from(r % 3 != 1)).collect();
    let inputs = Inputs {
        rows: case.rows,
        activations: a,
        mask: match case.mask {
            Kind::Ones => Mask::Ones,
            Kind::PerComponent => Mask::PerComponent(m),
            Kind::Full => Mask::Full(m),
            Kind::BetweenGiven => Mask::Between { importance, source: Source::Given(s) },
            Kind::BetweenShared => Mask::Between { importance, source: Source::Shared(s) },
            Kind::BetweenDrawn => {
                Mask::Between { importance, source: Source::Drawn { stream: STREAM, rows: &numbers } }
            }
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
    // What is written needs no clearing, except that of the delta component's mask, which is a sum over components.
    for (store, held) in [(Store::Add, 0.0), (Store::Write, f32::NAN)] {
        let mut grads = vec![held; at.len()];
        let mut rest = &mut grads[..];
        let [ga, gm, gu, gt, gd, gg, gs] = lengths.map(|n| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(n);
            rest = tail;
            head
        });
        gd.fill(0.0);
        let wanted = Gradients {
            activations: Some((ga, store)),
            mask: (!gm.is_empty()).then_some((gm, store)),
            importance: (!gg.is_empty()).then_some((gg, store)),
            source: (!gs.is_empty()).then_some((gs, store)),
            u: Some((gu, store)),
            frozen: Some((gt, store)),
            delta_mask: case.delta.then_some(gd),
        };
        backward(inputs, &upstream, wanted);
        let scale = 4e-6 * (case.components.max(case.rows).max(case.d_out) as f64);
        assert_close(&format!("gradients of {case:?}"), &grads, &expected, 2e-6, scale);
    }
}

#[test]
fn outputs_and_gradients_match_the_written_out_formula() {
    for (components, d_out, rows) in [(1, 1, 1), (20, 5, 17), (3, 2, 64), (20, 27, 6)] {
        for mask in KINDS {
            for (delta, routing) in [(false, false), (true, false), (false, true), (true, true)] {
                check(Case { components, d_out, rows, mask, delta, routing });
            }
        }
    }
}

/// Values and gradients (of activations, importances and U) of rows `span` of a large case, `[C, span]` each.
fn large(span: std::ops::Range<usize>) -> [Vec<f32>; 4] {
    let (components, d_out, rows) = (300, 3, 300);
    let cut = |seed: u64, features: usize| -> Vec<f32> {
        let all = values(seed, features * rows);
        all.chunks(rows).flat_map(|row| row[span.clone()].to_vec()).collect()
    };
    let (a, g, u) = (cut(1, components), cut(2, components), values(3, components * d_out));
    let (t, d, upstream) = (cut(4, d_out), cut(5, 1), cut(6, d_out));
    let numbers = &row_numbers(rows)[span.clone()];
    let inputs = Inputs {
        rows: span.len(),
        activations: &a,
        mask: Mask::Between { importance: &g, source: Source::Drawn { stream: STREAM, rows: numbers } },
        u: &u,
        frozen: Some(&t),
        delta_mask: Some(&d),
        routing: None,
        bias: None,
    };
    let mut y = vec![0.0; d_out * span.len()];
    forward(inputs, &mut y);
    let (mut ga, mut gg, mut gu) = (vec![0.0; a.len()], vec![0.0; g.len()], vec![0.0; u.len()]);
    let grads = Gradients {
        activations: Some((&mut ga, Store::Write)),
        importance: Some((&mut gg, Store::Write)),
        u: Some((&mut gu, Store::Write)),
        ..Gradients::default()
    };
    backward(inputs, &upstream, grads);
    [y, ga, gg, gu]
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| large(0..300))
    };
    assert!(bits(1) == bits(2) && bits(1) == bits(3));
}

#[test]
fn tiles_are_what_their_rows_alone_give() {
    // 300 components make tiles of 128 rows.
    let [y, ga, gg, gu] = large(0..300);
    let parts = [0..128, 128..256, 256..300].map(large);
    for (whole, part) in [(y, 0), (ga, 1), (gg, 2)] {
        let rows = |row: usize| {
            parts.iter().flat_map(move |arrays| {
                let width = arrays[0].len() / 3;
                arrays[part][row * width..(row + 1) * width].to_vec()
            })
        };
        assert!((0..whole.len() / 300).flat_map(rows).eq(whole));
    }
    let summed: Vec<f32> = (0..gu.len()).map(|i| parts.iter().fold(0.0, |sum, arrays| sum + arrays[3][i])).collect();
    assert_eq!(gu, summed);
}

#[test]
fn masked_activations_are_the_output_of_a_site_whose_u_is_the_identity() {
    let (c, rows) = (7, 150);
    let (a, g, s) = (values(1, c * rows), values(2, c * rows), values(3, c * rows));
    let (d, upstream, nothing) = (values(4, rows), values(5, c * rows), vec![0.0; c * rows]);
    let routing: Vec<f32> = (0..rows).map(|r| f32::from(r % 3 != 1)).collect();
    let identity: Vec<f32> = (0..c * c).map(|i| f32::from(i % (c + 1) == 0)).collect();
    for source in [Source::Given(&s), Source::Shared(&s[..c])] {
        let inputs = Inputs {
            rows,
            activations: &a,
            mask: Mask::Between { importance: &g, source },
            u: &identity,
            frozen: Some(&nothing),
            delta_mask: Some(&d),
            routing: Some(&routing),
            bias: None,
        };
        let run = |through_output: bool| {
            let mut y = vec![0.0; c * rows];
            let (mut ga, mut gg, mut gd) = (vec![0.0; c * rows], vec![0.0; c * rows], vec![0.0; rows]);
            let mut gs = vec![0.0; if matches!(source, Source::Given(_)) { c * rows } else { c }];
            let grads = Gradients {
                activations: Some((&mut ga, Store::Add)),
                importance: Some((&mut gg, Store::Add)),
                source: Some((&mut gs, Store::Add)),
                delta_mask: Some(&mut gd),
                ..Gradients::default()
            };
            if through_output {
                forward(inputs, &mut y);
                backward(inputs, &upstream, grads);
            } else {
                masked_activations(inputs, &mut y);
                masked_activations_backward(inputs, &upstream, grads);
            }
            [y, ga, gg, gs, gd]
        };
        for (ours, expected) in run(false).iter().zip(run(true)) {
            assert_close("masked activations", ours, &wide(&expected), 1e-6, 1e-6);
        }
    }
}

#[test]
fn no_rows_and_no_components_are_fine() {
    check(Case { components: 0, d_out: 2, rows: 3, mask: Kind::Full, delta: false, routing: false });
    check(Case { components: 2, d_out: 2, rows: 0, mask: Kind::Full, delta: true, routing: true });
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
