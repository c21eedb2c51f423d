//! Values that are kept as sums of products `Σ Aᵀz` and never multiplied out, if all who read them are linear.
//!
//! A residual stream of a thousand dimensions is written by matrices and read by matrices: by a site's V, by the
//! target's weights, by the unembedding. `W Aᵀz` costs far less as `(W Aᵀ) z`, since `W Aᵀ` is made once for the whole
//! step and `z` has a hundred dimensions. [`Graph::factored`] makes such a value; sums of them join their terms, and
//! products with them multiply the matrices first. Everything else multiplies them out ([`Graph::dense`]).
//!
//! For this to pay, equal products must be found again: a graph remembers the products of matrices, the products of
//! terms, and the activation functions it has computed ([`Memo`]).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::backend::{Array, Backend};
use super::graph::{DeviceResult, Graph, Precision, Var};

/// `Aᵀ z`.
struct Term<D: Backend> {
    /// A, `(n, features)`.
    matrix: Var<D>,
    /// z, `(n, R)`.
    factor: Var<D>,
}

/// A sum of products.
pub(super) struct Factored<D: Backend> {
    device: D,
    terms: Vec<Term<D>>,
    /// The product, once somebody has asked for it.
    dense: OnceLock<Var<D>>,
}

impl<D: Backend> Factored<D> {
    fn new(device: &D, terms: Vec<Term<D>>) -> Self {
        Self { device: device.clone(), terms, dense: OnceLock::new() }
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        let Term { matrix, factor } = &self.terms[0];
        (matrix.shape().1, factor.shape().1)
    }

    pub(super) fn is_traced(&self) -> bool {
        self.terms.iter().any(|term| term.matrix.is_traced() || term.factor.is_traced())
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.terms.len() == other.terms.len()
            && self
                .terms
                .iter()
                .zip(&other.terms)
                .all(|(a, b)| a.matrix.is_same(&b.matrix) && a.factor.is_same(&b.factor))
    }

    pub(super) fn array(&self) -> &Array<D> {
        let multiply = || {
            let graph = Graph::detached(&self.device);
            multiply_out(&graph, &self.terms).expect("enough memory to look at a value")
        };
        self.dense.get_or_init(multiply).array()
    }

    /// Returns the sum with every matrix and factor replaced.
    pub(super) fn map(&self, replace: impl Fn(&Var<D>) -> Var<D>) -> Self {
        let term = |term: &Term<D>| Term { matrix: replace(&term.matrix), factor: replace(&term.factor) };
        Self::new(&self.device, self.terms.iter().map(term).collect())
    }
}

fn multiply_out<D: Backend>(graph: &Graph<D>, terms: &[Term<D>]) -> DeviceResult<Var<D>, D> {
    sum(graph, terms.iter().map(|term| graph.apply_transposed(&term.matrix, &term.factor)))
}

fn sum<D: Backend>(
    graph: &Graph<D>,
    mut values: impl Iterator<Item = DeviceResult<Var<D>, D>>,
) -> DeviceResult<Var<D>, D> {
    let first = values.next().expect("a sum of products has a term")?;
    values.try_fold(first, |sum, value| graph.add(&sum, &value?))
}

/// What a graph has computed and may be asked for again, by what it was computed from.
pub(super) struct Memo<D: Backend>(BTreeMap<(Made, usize, usize), Remembered<D>>);

/// A result; what it was made from lives as long, so that addresses stay unique.
struct Remembered<D: Backend> {
    from: [Var<D>; 2],
    result: Var<D>,
}

impl<D: Backend> Default for Memo<D> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// How a remembered result was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Made {
    /// `A W`.
    Product,
    /// `A Wᵀ`.
    ProductWithTranspose,
    /// `Bᵀ z`.
    TransposedProduct,
    Relu,
    Gelu,
    /// The same, cut from its history.
    Detached,
}

impl<D: Backend> Memo<D> {
    /// Returns the same with nothing traced: `detach` of everything, which must give the same value every time.
    fn detached(&self, detach: impl Fn(&Var<D>) -> Var<D>) -> Self {
        let remembered = self.0.iter().filter(|((how, ..), _)| *how != Made::Detached);
        let entry = |((how, ..), Remembered { from: [a, b], result }): (&(Made, usize, usize), &Remembered<D>)| {
            let (a, b) = (detach(a), detach(b));
            let key = (*how, a.address(), b.address());
            (key, Remembered { from: [a, b], result: detach(result) })
        };
        Self(remembered.map(entry).collect())
    }
}

impl<D: Backend> Graph<D> {
    /// Lets this graph find what `outer` has computed, cut from its history: for a graph that computes with values that
    /// [`Graph::detach`] makes of the outer one's.
    #[must_use]
    pub fn remembering(self, outer: &Self) -> Self {
        let known = outer.memo.borrow().detached(|value| self.detach(value));
        self.memo.borrow_mut().0.extend(known.0);
        self
    }

    fn recall(&self, how: Made, a: &Var<D>, b: &Var<D>) -> Option<Var<D>> {
        let key = (how, a.address(), b.address());
        self.memo.borrow().0.get(&key).map(|found| found.result.clone())
    }

    fn remember(&self, how: Made, a: &Var<D>, b: &Var<D>, result: &Var<D>) {
        let remembered = Remembered { from: [a.clone(), b.clone()], result: result.clone() };
        self.memo.borrow_mut().0.insert((how, a.address(), b.address()), remembered);
    }

    /// Returns the same value cut from its history; the same one every time.
    pub fn detach(&self, value: &Var<D>) -> Var<D> {
        if !value.is_traced() {
            return value.clone();
        }
        if let Some(factors) = value.factors() {
            return Var::factored(factors.map(|factor| self.detach(factor)));
        }
        if let Some(found) = self.recall(Made::Detached, value, value) {
            return found;
        }
        let detached = self.constant(value.array().clone());
        self.remember(Made::Detached, value, value, &detached);
        detached
    }

    /// Returns what `make` made of `a` and `b`, now or earlier.
    pub(super) fn remembered(
        &self,
        how: Made,
        a: &Var<D>,
        b: &Var<D>,
        make: impl FnOnce() -> DeviceResult<Var<D>, D>,
    ) -> DeviceResult<Var<D>, D> {
        if let Some(found) = self.recall(how, a, b) {
            return Ok(found);
        }
        let result = make()?;
        self.remember(how, a, b, &result);
        Ok(result)
    }

    /// Returns `Aᵀ z`, not multiplied out unless products are to be rounded: `matrix` `(n, features)`, `z` `(n, R)`.
    ///
    /// # Errors
    /// The device's.
    pub fn factored(&self, matrix: &Var<D>, z: &Var<D>) -> DeviceResult<Var<D>, D> {
        if self.precision() != Precision::F32 {
            return self.apply_transposed(matrix, z);
        }
        assert_eq!(matrix.shape().0, z.shape().0, "the factors of a product");
        let term = Term { matrix: matrix.clone(), factor: z.clone() };
        Ok(Var::factored(Factored::new(self.device(), vec![term])))
    }

    /// Returns the value as a matrix.
    ///
    /// # Errors
    /// The device's.
    pub fn dense(&self, value: &Var<D>) -> DeviceResult<Var<D>, D> {
        match value.factors() {
            None => Ok(value.clone()),
            Some(factors) => multiply_out(self, &factors.terms),
        }
    }

    /// Returns `a + b` with the terms of both, if both are sums of products.
    pub(super) fn joined(&self, a: &Var<D>, b: &Var<D>) -> Option<Var<D>> {
        let (a, b) = (a.factors()?, b.factors()?);
        let terms = a.terms.iter().chain(&b.terms);
        let terms = terms.map(|term| Term { matrix: term.matrix.clone(), factor: term.factor.clone() }).collect();
        Some(Var::factored(Factored::new(self.device(), terms)))
    }

    /// Returns the sum of products with every factor replaced by what `change` makes of it; `None` of a matrix.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn with_factors(
        &self,
        value: &Var<D>,
        change: impl Fn(&Var<D>) -> DeviceResult<Var<D>, D>,
    ) -> DeviceResult<Option<Var<D>>, D> {
        let Some(factors) = value.factors() else { return Ok(None) };
        let term = |term: &Term<D>| Ok(Term { matrix: term.matrix.clone(), factor: change(&term.factor)? });
        let terms = factors.terms.iter().map(term).collect::<DeviceResult<_, D>>()?;
        Ok(Some(Var::factored(Factored::new(self.device(), terms))))
    }

    /// Returns `W x` or `Wᵀ x` of a sum of products `x = Σ Aᵀz`, the matrices multiplied first.
    pub(super) fn product_with_factors(
        &self,
        w: &Var<D>,
        x: &Factored<D>,
        transposed: bool,
    ) -> DeviceResult<Var<D>, D> {
        let of_term = |term: &Term<D>| {
            let Term { matrix, factor } = term;
            // Of Wᵀ Aᵀ z = (A W)ᵀ z and W Aᵀ z = (A Wᵀ)ᵀ z the matrix in brackets is made once.
            let both = if transposed {
                self.remembered(Made::Product, matrix, w, || self.apply(matrix, w))?
            } else {
                self.remembered(Made::ProductWithTranspose, matrix, w, || self.apply_to_transpose(matrix, w))?
            };
            self.remembered(Made::TransposedProduct, &both, factor, || self.apply_transposed(&both, factor))
        };
        sum(self, x.terms.iter().map(of_term))
    }
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::Cpu;

    use super::*;
    use crate::bridge::Buffers;

    fn values(seed: usize, n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + seed * 101) % 19) as f32 / 7.0 - 1.3).collect()
    }

    /// Returns a product with a sum of products and the gradients of all it depends on.
    fn run(multiply_out: bool, transposed: bool) -> Vec<Vec<f32>> {
        let device = Cpu::default();
        let graph = Graph::recording(&device);
        let leaf = |seed: usize, shape: (usize, usize)| {
            let array = device.upload(values(seed, shape.0 * shape.1), shape).expect("enough memory");
            graph.leaf(array).expect("enough memory")
        };
        let (a, b, z, y) = (leaf(1, (3, 8)), leaf(2, (2, 8)), leaf(3, (3, 5)), leaf(4, (2, 5)));
        let w = if transposed { leaf(5, (8, 4)) } else { leaf(5, (4, 8)) };
        let compute = || -> DeviceResult<Var<Cpu>, Cpu> {
            let x = graph.add(&graph.factored(&a, &z)?, &graph.factored(&b, &y)?)?;
            assert!(x.factors().is_some());
            let x = if multiply_out { graph.dense(&x)? } else { x };
            let out = if transposed { graph.apply_transposed(&w, &x)? } else { graph.apply(&w, &x)? };
            graph.combine(&[(0.5, graph.squared_error(&out, &graph.upload(values(6, 20), (4, 5))?)?)])
        };
        let loss = compute().expect("enough memory");
        let mut all = vec![loss.to_vec()];
        all.extend(graph.gradients(&loss, &[a, b, z, y, w]).expect("enough memory").iter().map(Cpu::read_gradient));
        all
    }

    #[test]
    fn a_product_with_a_sum_of_products_and_its_gradients_are_those_of_the_matrix() {
        for transposed in [false, true] {
            for (ours, expected) in run(false, transposed).iter().flatten().zip(run(true, transposed).iter().flatten())
            {
                assert!((ours - expected).abs() <= 2e-5 * expected.abs().max(1.0), "{ours} {expected}");
            }
        }
    }

    #[test]
    fn equal_products_are_one_and_activations_are_computed_once() {
        let graph = Graph::detached(&Cpu::default());
        let upload = |seed: usize, shape: (usize, usize)| {
            graph.upload(values(seed, shape.0 * shape.1), shape).expect("enough memory")
        };
        let (a, z, w) = (upload(1, (3, 8)), upload(2, (3, 5)), upload(3, (4, 8)));
        let first = graph.factored(&a, &z).expect("enough memory");
        let second = graph.factored(&a, &z).expect("enough memory");
        assert!(first.is_same(&second) && !first.is_same(&z));
        let read = |x: &Var<Cpu>| graph.relu(&graph.apply(&w, x).expect("enough memory")).expect("enough memory");
        assert!(read(&first).is_same(&read(&second)));
    }

    #[test]
    fn a_graph_that_remembers_another_finds_its_products_without_their_history() {
        let device = Cpu::default();
        let outer = Graph::recording(&device);
        let leaf = |seed: usize, shape: (usize, usize)| {
            let array = device.upload(values(seed, shape.0 * shape.1), shape).expect("enough memory");
            outer.leaf(array).expect("enough memory")
        };
        let (a, z, w) = (leaf(1, (3, 8)), leaf(2, (3, 5)), leaf(3, (4, 8)));
        let read = |graph: &Graph<Cpu>, [a, z, w]: [&Var<Cpu>; 3]| -> DeviceResult<Var<Cpu>, Cpu> {
            graph.apply(w, &graph.factored(a, z)?)
        };
        let traced = read(&outer, [&a, &z, &w]).expect("enough memory");
        let inner = Graph::recording(&device).remembering(&outer);
        let detached = [&a, &z, &w].map(|leaf| inner.detach(leaf));
        assert!(detached[0].is_same(&inner.detach(&a)) && !detached[0].is_traced());
        let found = read(&inner, detached.each_ref()).expect("enough memory");
        assert!(found.is_same(&inner.detach(&traced)) && traced.is_traced() && !found.is_traced());
        assert_eq!(found.to_vec(), traced.to_vec());
        // A graph of its own makes it again.
        let other = Graph::recording(&device);
        let made = read(&other, [&a, &z, &w].map(|leaf| other.detach(leaf)).each_ref()).expect("enough memory");
        assert!(!made.is_same(&found) && made.to_vec() == found.to_vec());
    }
}
