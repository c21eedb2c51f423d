//! The loops: elementwise passes over `[C, R]` around the two matrix products with U.

use super::{Gradients, Inputs, Mask};
use crate::lanes::sum_over;
use crate::linear;

/// Returns `a ⊙ (m − d)`, zero in rows routed to the target: what is multiplied by U.
fn effective_activations(inputs: &Inputs<'_>, components: usize) -> Vec<f32> {
    let rows = inputs.rows;
    let mut effective = inputs.activations.to_vec();
    if rows == 0 {
        return effective;
    }
    for (c, effective) in effective.chunks_mut(rows).enumerate().take(components) {
        match (inputs.mask, inputs.delta_mask) {
            (Mask::Ones, None) => {}
            (Mask::Ones, Some(delta)) => scale(effective, |r| 1.0 - delta[r]),
            (Mask::PerComponent(mask), None) => scale(effective, |_| mask[c]),
            (Mask::PerComponent(mask), Some(delta)) => scale(effective, |r| mask[c] - delta[r]),
            (Mask::Full(mask), None) => {
                let mask = &mask[c * rows..(c + 1) * rows];
                scale(effective, |r| mask[r]);
            }
            (Mask::Full(mask), Some(delta)) => {
                let mask = &mask[c * rows..(c + 1) * rows];
                scale(effective, |r| mask[r] - delta[r]);
            }
        }
        if let Some(routing) = inputs.routing {
            scale(effective, |r| routing[r]);
        }
    }
    effective
}

#[inline(always)]
fn scale(values: &mut [f32], factor: impl Fn(usize) -> f32) {
    for (r, value) in values.iter_mut().enumerate() {
        *value *= factor(r);
    }
}

pub(super) fn forward(inputs: Inputs<'_>, out: &mut [f32], components: usize, d_out: usize) {
    let rows = inputs.rows;
    if rows == 0 {
        return;
    }
    out.fill(0.0);
    let effective = effective_activations(&inputs, components);
    linear::apply_transposed(inputs.u, &effective, out, d_out, components, rows);
    for (o, out) in out.chunks_mut(rows).enumerate() {
        if let Some(frozen) = inputs.frozen {
            let frozen = &frozen[o * rows..(o + 1) * rows];
            match (inputs.delta_mask, inputs.routing) {
                (None, None) => {}
                (Some(delta), None) => add(out, |r| delta[r] * frozen[r]),
                (None, Some(route)) => add(out, |r| (1.0 - route[r]) * frozen[r]),
                (Some(delta), Some(route)) => add(out, |r| (if route[r] == 0.0 { 1.0 } else { delta[r] }) * frozen[r]),
            }
        }
        if let Some(bias) = inputs.bias {
            add(out, |_| bias[o]);
        }
    }
}

#[inline(always)]
fn add(values: &mut [f32], term: impl Fn(usize) -> f32) {
    for (r, value) in values.iter_mut().enumerate() {
        *value += term(r);
    }
}

pub(super) fn backward(inputs: Inputs<'_>, grad_out: &[f32], grads: Gradients<'_>, components: usize, d_out: usize) {
    let rows = inputs.rows;
    if rows == 0 {
        return;
    }
    // Upstream gradient of the rows that went through the components.
    let mut routed_storage;
    let routed = match inputs.routing {
        None => grad_out,
        Some(route) => {
            routed_storage = grad_out.to_vec();
            routed_storage.chunks_mut(rows).for_each(|row| scale(row, |r| route[r]));
            &routed_storage[..]
        }
    };
    if let Some(grad_u) = grads.u {
        let effective = effective_activations(&inputs, components);
        linear::outer(&effective, grad_out, grad_u, components, d_out, rows);
    }
    if let (Some(grad), Some(_)) = (grads.frozen, inputs.frozen) {
        for (grad, upstream) in grad.chunks_mut(rows).zip(grad_out.chunks(rows)) {
            match (inputs.delta_mask, inputs.routing) {
                (None, None) => {}
                (Some(delta), None) => add(grad, |r| delta[r] * upstream[r]),
                (None, Some(route)) => add(grad, |r| (1.0 - route[r]) * upstream[r]),
                (Some(delta), Some(route)) => {
                    add(grad, |r| (if route[r] == 0.0 { 1.0 } else { delta[r] }) * upstream[r])
                }
            }
        }
    }
    if grads.activations.is_none() && grads.mask.is_none() && grads.delta_mask.is_none() {
        return;
    }
    // s[c, r] = Σ_o U[c, o] ∂y[o, r]: what one unit of masked activation is worth.
    let mut worth = vec![0.0; components * rows];
    linear::apply(inputs.u, routed, &mut worth, components, d_out, rows);
    let (mut grad_a, mut grad_m, mut grad_d) = (grads.activations, grads.mask, grads.delta_mask);
    for (c, worth) in worth.chunks(rows).enumerate() {
        let span = c * rows..(c + 1) * rows;
        let activations = &inputs.activations[span.clone()];
        if let Some(grad) = grad_a.as_deref_mut() {
            let grad = &mut grad[span.clone()];
            match (inputs.mask, inputs.delta_mask) {
                (Mask::Ones, None) => add(grad, |r| worth[r]),
                (Mask::Ones, Some(delta)) => add(grad, |r| (1.0 - delta[r]) * worth[r]),
                (Mask::PerComponent(mask), None) => add(grad, |r| mask[c] * worth[r]),
                (Mask::PerComponent(mask), Some(delta)) => add(grad, |r| (mask[c] - delta[r]) * worth[r]),
                (Mask::Full(mask), None) => {
                    let mask = &mask[span.clone()];
                    add(grad, |r| mask[r] * worth[r]);
                }
                (Mask::Full(mask), Some(delta)) => {
                    let mask = &mask[span.clone()];
                    add(grad, |r| (mask[r] - delta[r]) * worth[r]);
                }
            }
        }
        if let Some(grad) = grad_m.as_deref_mut() {
            match inputs.mask {
                Mask::Ones => {}
                Mask::PerComponent(_) => grad[c] += sum_over(rows, |r| activations[r] * worth[r]),
                Mask::Full(_) => add(&mut grad[span], |r| activations[r] * worth[r]),
            }
        }
        if let Some(grad) = grad_d.as_deref_mut() {
            add(grad, |r| -activations[r] * worth[r]);
        }
    }
    if let (Some(grad), Some(frozen)) = (grad_d, inputs.frozen) {
        for (upstream, frozen) in routed.chunks(rows).zip(frozen.chunks(rows)) {
            add(grad, |r| upstream[r] * frozen[r]);
        }
    }
}
