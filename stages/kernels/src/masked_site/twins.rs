//! The masked site on a GPU beside that on the processor: outputs and all gradients, for every kind of mask.

use super::*;
use crate::cuda::{Memory, upload_numbers};
use crate::testing::{assert_close, cuda_device, from_device, on_device, unwritten, values, wide};

/// The gradients in the order of [`Gradients`].
const NAMES: [&str; 7] = ["activations", "mask", "importance", "source", "U", "frozen", "delta mask"];

const STREAM: Stream = Stream { seed: 5, purpose: 1, step: 2, index: 3 };

/// Kinds of masks, by number.
const KINDS: std::ops::Range<usize> = 0..6;

/// Lengths of a mask, importances and sources of the kind.
fn mask_lengths(kind: usize, components: usize, rows: usize) -> [usize; 3] {
    let all = components * rows;
    [[0, 0, 0], [components, 0, 0], [all, 0, 0], [0, all, all], [0, all, components], [0, all, 0]][kind]
}

fn agrees(kind: usize, delta: bool, routing: bool, [components, d_out, rows]: [usize; 3]) {
    let device = cuda_device(&[&cuda::MODULE, &crate::linear::cuda::MODULE]);
    let what =
        |name: &str| format!("{name}, mask {kind}, delta {delta}, routing {routing}, {components} {d_out} {rows}");
    let [mask_length, importance_length, source_length] = mask_lengths(kind, components, rows);
    let lengths =
        [components * rows, mask_length, importance_length, source_length, components * d_out, d_out * rows, rows];
    let [a, m, g, s, u, t, d] = std::array::from_fn(|i| values(i as u64 + 1, lengths[i]));
    let bias = values(8, d_out);
    let route: Vec<f32> = (0..rows).map(|r| f32::from(r % 3 != 1)).collect();
    let numbers: Vec<u32> = (0..rows as u32).map(|r| 2 * r).collect();
    let mask = match kind {
        0 => Mask::Ones,
        1 => Mask::PerComponent(&m),
        2 => Mask::Full(&m),
        3 => Mask::Between { importance: &g, source: Source::Given(&s) },
        4 => Mask::Between { importance: &g, source: Source::Shared(&s) },
        _ => Mask::Between { importance: &g, source: Source::Drawn { stream: STREAM, rows: &numbers } },
    };
    let inputs = Inputs {
        rows,
        activations: &a,
        mask,
        u: &u,
        frozen: Some(&t),
        delta_mask: delta.then_some(&d[..]),
        routing: routing.then_some(&route),
        bias: Some(&bias),
    };
    let there = [&a, &m, &g, &s, &u, &t, &d, &bias, &route].map(|x| on_device(&device, x));
    let [a_there, m_there, g_there, s_there, u_there, t_there, d_there, bias_there, route_there] = &there;
    let numbers_there = upload_numbers(&device, &numbers).expect("memory on the GPU");
    let mask = match kind {
        0 => cuda::Mask::Ones,
        1 => cuda::Mask::PerComponent(m_there),
        2 => cuda::Mask::Full(m_there),
        3 => cuda::Mask::Between { importance: g_there, source: cuda::Source::Given(s_there) },
        4 => cuda::Mask::Between { importance: g_there, source: cuda::Source::Shared(s_there) },
        _ => cuda::Mask::Between {
            importance: g_there,
            source: cuda::Source::Drawn { stream: STREAM, rows: &numbers_there },
        },
    };
    let inputs_there = cuda::Inputs {
        rows,
        activations: a_there,
        mask,
        u: u_there,
        frozen: Some(t_there),
        delta_mask: delta.then_some(d_there),
        routing: routing.then_some(route_there),
        bias: Some(bias_there),
    };
    // Products of three numbers up to 3, rounded at 6e-8 each, summed over components, rows or outputs.
    let bound = 1e-5 * components.max(rows).max(d_out).max(1) as f64;

    let mut y = vec![f32::NAN; d_out * rows];
    forward(inputs, &mut y);
    let mut y_there = unwritten(&device, y.len());
    cuda::forward(inputs_there, &mut y_there).expect("a launch");
    assert_close(&what("output"), &from_device(&y_there), &wide(&y), 1e-5, bound);
    let mut masked = vec![f32::NAN; components * rows];
    masked_activations(inputs, &mut masked);
    let mut masked_there = unwritten(&device, masked.len());
    cuda::masked_activations(inputs_there, &mut masked_there).expect("a launch");
    assert_close(&what("masked activations"), &from_device(&masked_there), &wide(&masked), 1e-5, 1e-5);

    let upstream = [values(11, y.len()), values(12, masked.len())];
    let upstream_there = upstream.each_ref().map(|upstream| on_device(&device, upstream));
    for (of_output, store) in [(true, Store::Write), (true, Store::Add), (false, Store::Write), (false, Store::Add)] {
        // What is written needs no clearing, except that of the delta component's mask, which is a sum over components.
        let held = if store == Store::Write { f32::NAN } else { 0.5 };
        let mut grads: [Vec<f32>; 7] = std::array::from_fn(|i| vec![if i == 6 { 0.5 } else { held }; lengths[i]]);
        let mut grads_there: [Memory; 7] = grads.each_ref().map(|grad| on_device(&device, grad));
        {
            let [ga, gm, gg, gs, gu, gt, gd] = &mut grads;
            let wanted = Gradients {
                activations: Some((ga, store)),
                mask: (mask_length > 0).then_some((gm, store)),
                importance: (importance_length > 0).then_some((gg, store)),
                source: (source_length > 0).then_some((gs, store)),
                u: of_output.then_some((gu, store)),
                frozen: of_output.then_some((gt, store)),
                delta_mask: delta.then_some(gd),
            };
            let [ga, gm, gg, gs, gu, gt, gd] = &mut grads_there;
            let wanted_there = cuda::Gradients {
                activations: Some((ga, store)),
                mask: (mask_length > 0).then_some((gm, store)),
                importance: (importance_length > 0).then_some((gg, store)),
                source: (source_length > 0).then_some((gs, store)),
                u: of_output.then_some((gu, store)),
                frozen: of_output.then_some((gt, store)),
                delta_mask: delta.then_some(gd),
            };
            if of_output {
                backward(inputs, &upstream[0], wanted);
                cuda::backward(inputs_there, &upstream_there[0], wanted_there).expect("launches");
            } else {
                masked_activations_backward(inputs, &upstream[1], wanted);
                cuda::masked_activations_backward(inputs_there, &upstream_there[1], wanted_there).expect("launches");
            }
        }
        for (i, name) in NAMES.iter().enumerate().filter(|(i, _)| of_output || !matches!(i, 4 | 5)) {
            let found = from_device(&grads_there[i]);
            assert_close(&what(name), &found, &wide(&grads[i]), 1e-5, bound);
        }
    }
}

#[test]
fn the_twins_agree() {
    for shape in [[1, 1, 1], [20, 5, 17], [3, 2, 67], [33, 18, 6], [3, 2, 0]] {
        for kind in KINDS {
            for (delta, routing) in [(false, false), (true, false), (false, true), (true, true)] {
                agrees(kind, delta, routing, shape);
            }
        }
    }
}
