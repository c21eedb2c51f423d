//! Causal attention of several heads: `softmax(q kᵀ / √d_head + causal mask) v` within each sequence.
//!
//! `q, k, v, y [H·d_head, R]`: head h owns the features `h·d_head..(h+1)·d_head`; rows are the positions of one sequence
//! after the other, `R = sequences · length`. For each head and sequence
//!
//! ```text
//! s[i, j] = Σ_f q[f, i] k[f, j] / √d_head   for j ≤ i
//! p[i, ·] = softmax(s[i, 0..=i]),   y[f, i] = Σ_j p[i, j] v[f, j]
//! ```
//!
//! and with upstream g: `∂v[f, j] = Σ_i p[i, j] g[f, i]`, `∂p[i, j] = Σ_f g[f, i] v[f, j]`,
//! `∂s = p ⊙ (∂p − Σ_j p ∂p) / √d_head`, `∂q[f, i] = Σ_j ∂s[i, j] k[f, j]`, `∂k[f, j] = Σ_i ∂s[i, j] q[f, i]`.
//! The backward pass computes the probabilities again: they take `length²` numbers for each head and sequence.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod last;
#[cfg(test)]
mod tests;

pub use last::{backward_last, forward_last};

use crate::parallel;

/// The sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many heads.
    pub heads: usize,
    /// Features of one head.
    pub d_head: usize,
    /// How many sequences.
    pub sequences: usize,
    /// Positions of one sequence.
    pub length: usize,
}

impl Shape {
    /// Returns the number of elements of `q`.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.heads * self.d_head * self.rows()
    }

    fn rows(&self) -> usize {
        self.sequences * self.length
    }

    fn operations(&self) -> usize {
        self.elements() * self.length
    }

    /// Returns where the numbers of a task (a sequence's head) begin; its features are `rows` apart.
    fn start(&self, task: usize) -> usize {
        let (sequence, head) = (task / self.heads, task % self.heads);
        head * self.d_head * self.rows() + sequence * self.length
    }

    /// Adds the `[d_head, length]` results of every task to their places.
    fn scatter(&self, pieces: &[f32], stride: usize, offset: usize, out: &mut [f32]) {
        for (task, piece) in pieces.chunks(stride.max(1)).enumerate() {
            let piece = &piece[offset..offset + self.d_head * self.length];
            for (f, values) in piece.chunks(self.length.max(1)).enumerate() {
                let at = self.start(task) + f * self.rows();
                for (out, value) in out[at..at + self.length].iter_mut().zip(values) {
                    *out += value;
                }
            }
        }
    }
}

/// The gradients that are wanted, each `[H·d_head, R]`.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the queries.
    pub q: Option<&'a mut [f32]>,
    /// Of the keys.
    pub k: Option<&'a mut [f32]>,
    /// Of the values.
    pub v: Option<&'a mut [f32]>,
}

/// Adds the attention's output to `out`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward(q: &[f32], k: &[f32], v: &[f32], out: &mut [f32], shape: Shape) {
    check(&[q, k, v, out], shape);
    let piece = shape.d_head * shape.length;
    let mut pieces = vec![0.0; shape.heads * shape.sequences * piece];
    parallel::for_each_row(&mut pieces, piece, shape.operations(), |task, piece| {
        let at = shape.start(task);
        let mut p = vec![0.0; shape.length * shape.length];
        cpu::probabilities(&q[at..], &k[at..], &mut p, shape.d_head, shape.length, shape.rows());
        cpu::mix(&p, &v[at..], piece, shape.length, shape.rows());
    });
    shape.scatter(&pieces, piece, 0, out);
}

/// Adds the gradients for the upstream gradient `grad_out`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward(q: &[f32], k: &[f32], v: &[f32], grad_out: &[f32], grads: Gradients<'_>, shape: Shape) {
    check(&[q, k, v, grad_out], shape);
    let piece = shape.d_head * shape.length;
    let mut pieces = vec![0.0; shape.heads * shape.sequences * 3 * piece];
    let through_scores = grads.q.is_some() || grads.k.is_some();
    parallel::for_each_row(&mut pieces, 3 * piece, 4 * shape.operations(), |task, pieces| {
        let at = shape.start(task);
        let rows = shape.rows();
        let mut p = vec![0.0; shape.length * shape.length];
        cpu::probabilities(&q[at..], &k[at..], &mut p, shape.d_head, shape.length, rows);
        let (grad_q, rest) = pieces.split_at_mut(piece);
        let (grad_k, grad_v) = rest.split_at_mut(piece);
        cpu::contract(&p, &grad_out[at..], grad_v, shape.length, rows);
        if through_scores {
            cpu::scores_backward(&mut p, &v[at..], &grad_out[at..], shape.d_head, shape.length, rows);
            cpu::mix(&p, &k[at..], grad_q, shape.length, rows);
            cpu::contract(&p, &q[at..], grad_k, shape.length, rows);
        }
    });
    for (index, grad) in [grads.q, grads.k, grads.v].into_iter().enumerate() {
        if let Some(grad) = grad {
            assert_eq!(grad.len(), shape.elements(), "attention: gradients");
            shape.scatter(&pieces, 3 * piece, index * piece, grad);
        }
    }
}

/// Returns the attention of every position to every position, `[sequences, heads, length, length]`: the last axis is
/// what is looked at, and adds up to one.
///
/// # Panics
/// If a length does not fit the shape.
#[must_use]
pub fn weights(q: &[f32], k: &[f32], shape: Shape) -> Vec<f32> {
    check(&[q, k], shape);
    let length = shape.length;
    let mut out = vec![0.0; shape.sequences * shape.heads * length * length];
    parallel::for_each_row(&mut out, length * length, shape.operations(), |task, out| {
        let at = shape.start(task);
        let mut p = vec![0.0; length * length];
        cpu::probabilities(&q[at..], &k[at..], &mut p, shape.d_head, length, shape.rows());
        for (j, p) in p.chunks(length).enumerate() {
            for (i, p) in p.iter().enumerate() {
                out[i * length + j] = *p;
            }
        }
    });
    out
}

fn check(values: &[&[f32]], shape: Shape) {
    for values in values {
        assert_eq!(values.len(), shape.elements(), "attention: {shape:?}");
    }
}
