//! Linear maps: `W x`, `Wᵀ x`, sums and biases.

use super::super::backend::Backend;
use super::super::graph::{DeviceResult, Graph, Var};

impl<D: Backend> Graph<D> {
    /// Returns `W x`: `w` `(m, n)`, `x` `(n, R)`.
    pub fn apply(&self, w: &Var<D>, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        self.product(w, x, false)
    }

    /// Returns `Wᵀ x`: `w` `(n, m)`, `x` `(n, R)`.
    pub fn apply_transposed(&self, w: &Var<D>, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        self.product(w, x, true)
    }

    fn product(&self, w: &Var<D>, x: &Var<D>, transposed: bool) -> DeviceResult<Var<D>, D> {
        let (first, second) = w.shape();
        let (m, n) = if transposed { (second, first) } else { (first, second) };
        let (inputs, rows) = x.shape();
        assert_eq!(n, inputs, "product: a weight for {n} features meets {inputs}");
        if let Some(factors) = x.factors() {
            return self.product_with_factors(w, factors, transposed);
        }
        let (w, x) = (&self.operand(w)?, &self.operand(x)?);
        let out = self.device().product(w.view(), x.view(), transposed, n, (m, rows))?;
        let (w_view, x_view) = (w.view().clone(), x.view().clone());
        self.push(out, &[w, x], move |device, grad_out, grads| {
            let [grad_w, grad_x] = grads else { unreachable!("two inputs") };
            device.product_backward(
                &w_view,
                &x_view,
                transposed,
                n,
                (m, rows),
                grad_out,
                grad_w.as_mut(),
                grad_x.as_mut(),
            )
        })
    }

    /// Returns `A Bᵀ`: `a` `(m, d)`, `b` `(n, d)`.
    pub(in crate::bridge) fn apply_to_transpose(&self, a: &Var<D>, b: &Var<D>) -> DeviceResult<Var<D>, D> {
        let ((m, d), (n, other)) = (a.shape(), b.shape());
        assert_eq!(d, other, "a product of rows of {d} and {other} entries");
        let out = self.device().product_of_rows(a.view(), b.view(), d, (m, n))?;
        let (a_view, b_view) = (a.view().clone(), b.view().clone());
        self.push(out, &[a, b], move |device, grad_out, grads| {
            let [grad_a, grad_b] = grads else { unreachable!("two inputs") };
            device.product_of_rows_backward(&a_view, &b_view, d, (m, n), grad_out, grad_a.as_mut(), grad_b.as_mut())
        })
    }

    /// Returns the transpose of a matrix.
    pub fn transpose(&self, x: &Var<D>) -> DeviceResult<Var<D>, D> {
        let x = &self.dense(x)?;
        let (m, n) = x.shape();
        let out = self.device().transpose(x.view(), (n, m))?;
        self.push(out, &[x], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.transpose_backward((n, m), grad_out, grad))
        })
    }

    /// Returns `x ⊙ s`, a factor for each row: `x` `(m, R)`, `factors` `(1, R)`.
    pub fn scale_rows(&self, x: &Var<D>, factors: &Var<D>) -> DeviceResult<Var<D>, D> {
        let x = &self.dense(x)?;
        let shape = x.shape();
        assert_eq!(factors.shape(), (1, shape.1), "a factor for each row");
        let out = self.device().scale_rows(x.view(), factors.view(), shape)?;
        let (x_view, factors_view) = (x.view().clone(), factors.view().clone());
        self.push(out, &[x, factors], move |device, grad_out, grads| {
            let [grad_x, grad_factors] = grads else { unreachable!("two inputs") };
            device.scale_rows_backward(&x_view, &factors_view, shape, grad_out, grad_x.as_mut(), grad_factors.as_mut())
        })
    }

    /// Returns `x + b` for every row: `x` `(m, R)`, `bias` `(m, 1)`.
    pub fn add_bias(&self, x: &Var<D>, bias: &Var<D>) -> DeviceResult<Var<D>, D> {
        let x = &self.dense(x)?;
        let shape = x.shape();
        assert_eq!(bias.shape(), (shape.0, 1), "bias of {} features", shape.0);
        let out = self.device().add_bias(x.view(), bias.view(), shape)?;
        self.push(out, &[x, bias], move |device, grad_out, grads| {
            let [grad_x, grad_bias] = grads else { unreachable!("two inputs") };
            device.add_bias_backward(shape, grad_out, grad_x.as_mut(), grad_bias.as_mut())
        })
    }

    /// Returns `a + b`.
    pub fn add(&self, a: &Var<D>, b: &Var<D>) -> DeviceResult<Var<D>, D> {
        assert_eq!(a.shape(), b.shape(), "sum of matrices");
        if let Some(joined) = self.joined(a, b) {
            return Ok(joined);
        }
        let (a, b) = (&self.dense(a)?, &self.dense(b)?);
        let out = self.device().add(a.view(), b.view(), a.shape())?;
        self.push(out, &[a, b], move |device, grad_out, grads| {
            grads.iter_mut().flatten().try_for_each(|grad| device.add_backward(grad_out, grad))
        })
    }
}
