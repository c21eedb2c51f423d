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

    fn layout(&self) -> cpu::Layout {
        cpu::Layout { d_head: self.d_head, length: self.length, rows: self.rows() }
    }

    /// Returns for each task the rows of its features in an array; none if there is no array.
    fn tasks<'a>(&self, array: Option<&'a mut [f32]>) -> Vec<Vec<&'a mut [f32]>> {
        let mut tasks = Vec::with_capacity(self.sequences * self.heads);
        for sequence in columns(array, self.sequences, self.rows(), self.length) {
            let mut features = sequence.into_iter();
            tasks.extend((0..self.heads).map(|_| features.by_ref().take(self.d_head).collect::<Vec<_>>()));
        }
        tasks
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
    if shape.elements() == 0 {
        return;
    }
    let tasks: Vec<_> = shape.tasks(Some(out)).into_iter().enumerate().collect();
    parallel::for_each_with(tasks, shape.operations(), cpu::Scratch::default, |scratch, (task, mut out)| {
        let inputs = [q, k, v].map(|x| &x[shape.start(task)..]);
        cpu::forward(inputs, &mut out, shape.layout(), scratch);
    });
}

/// Adds the gradients for the upstream gradient `grad_out`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward(q: &[f32], k: &[f32], v: &[f32], grad_out: &[f32], grads: Gradients<'_>, shape: Shape) {
    check(&[q, k, v, grad_out], shape);
    if shape.elements() == 0 {
        return;
    }
    let [of_q, of_k, of_v] = [grads.q, grads.k, grads.v].map(|grad| {
        assert!(grad.as_ref().is_none_or(|grad| grad.len() == shape.elements()), "attention: gradients");
        shape.tasks(grad)
    });
    let tasks: Vec<_> = of_q.into_iter().zip(of_k).zip(of_v).enumerate().collect();
    let operations = 4 * shape.operations();
    parallel::for_each_with(
        tasks,
        operations,
        cpu::Scratch::default,
        |scratch, (task, ((mut q_to, mut k_to), mut v_to))| {
            let inputs = [q, k, v, grad_out].map(|x| &x[shape.start(task)..]);
            cpu::backward(inputs, [&mut q_to, &mut k_to, &mut v_to], shape.layout(), scratch);
        },
    );
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
        cpu::weights(&q[at..], &k[at..], out, shape.layout(), &mut cpu::Scratch::default());
    });
    out
}

/// Returns each sequence's columns of an array; none if there is no array.
fn columns(array: Option<&mut [f32]>, sequences: usize, rows: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    match array {
        Some(array) => parallel::columns(array, rows, width),
        None => (0..sequences).map(|_| Vec::new()).collect(),
    }
}

fn check(values: &[&[f32]], shape: Shape) {
    for values in values {
        assert_eq!(values.len(), shape.elements(), "attention: {shape:?}");
    }
}
