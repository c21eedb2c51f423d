//! Scalars: squared error, importance minimality, faithfulness, and their weighted sum.

use spdflow_kernels::importance_minimality::Constants;

use super::super::backend::Backend;
use super::super::graph::{DeviceResult, Graph, Var};
use crate::collective::Ranks;

impl<D: Backend> Graph<D> {
    /// Returns `Σ (prediction − target)²`; the target is a constant.
    pub fn squared_error(&self, prediction: &Var<D>, target: &Var<D>) -> DeviceResult<Var<D>, D> {
        assert_eq!(prediction.shape(), target.shape(), "prediction and target");
        let prediction = &self.dense(prediction)?;
        let (prediction, target) = (&self.operand(prediction)?, &self.operand(target)?);
        let out = self.device().squared_error(prediction.view(), target.view())?;
        let (p, t) = (prediction.view().clone(), target.view().clone());
        self.push(out, &[prediction], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| device.squared_error_backward(&p, &t, grad_out, grad))
        })
    }

    /// Returns one site's importance minimality over `positions` positions, or this rank's part of it.
    ///
    /// `upper` `(C, R)`; `row_counts` `(1, R)` says how many positions each row stands for. The parts of all ranks add up
    /// to the whole: the logarithm of the frequency term sees the sums over all of them.
    pub fn importance_minimality(
        &self,
        upper: &Var<D>,
        row_counts: Option<&Var<D>>,
        constants: Constants,
        positions: f64,
        ranks: &Ranks<'_>,
    ) -> DeviceResult<Var<D>, D> {
        let shape = upper.shape();
        let counts = row_counts.map(|counts| counts.view().clone());
        let (mut out, mut sums) =
            self.device().importance_minimality(upper.view(), counts.as_ref(), constants, positions, shape)?;
        if constants.beta != 0.0 && !ranks.is_alone() {
            let ours = D::download(&sums);
            let mut all = ours.clone();
            ranks.sum(&mut all, &mut []);
            let value = importance_part(&ours, &all, positions, constants);
            out = self.device().upload(vec![value as f32], (1, 1))?;
            sums = self.device().upload(all, (shape.0, 1))?.data;
        }
        let view = upper.view().clone();
        self.push(out, &[upper], move |device, grad_out, grads| {
            grads[0].as_mut().map_or(Ok(()), |grad| {
                device.importance_minimality_backward(
                    &view,
                    counts.as_ref(),
                    constants,
                    &sums,
                    positions,
                    shape.1,
                    grad_out,
                    grad,
                )
            })
        })
    }

    /// Returns `Σ (W − (VU)ᵀ)²`: `w` `(d_out, d_in)` a constant, `v` `(d_in, C)`, `u` `(C, d_out)`.
    pub fn faithfulness(&self, w: &Var<D>, v: &Var<D>, u: &Var<D>) -> DeviceResult<Var<D>, D> {
        let w_shape = w.shape();
        let out = self.device().faithfulness(w.view(), v.view(), u.view(), w_shape)?;
        let (w_view, v_view, u_view) = (w.view().clone(), v.view().clone(), u.view().clone());
        assert_eq!(v.is_traced(), u.is_traced(), "V and U are trained together");
        self.push(out, &[v, u], move |device, grad_out, grads| {
            let [Some(grad_v), Some(grad_u)] = grads else { unreachable!("two traced inputs") };
            device.faithfulness_backward(&w_view, &v_view, &u_view, w_shape, grad_out, grad_v, grad_u)
        })
    }

    /// Returns `Σ coefficient · scalar`; nothing for an empty list but zero.
    pub fn combine(&self, terms: &[(f64, Var<D>)]) -> DeviceResult<Var<D>, D> {
        let coefficients: Vec<f64> = terms.iter().map(|(coefficient, _)| *coefficient).collect();
        let views: Vec<_> = terms.iter().map(|(_, scalar)| scalar.view().clone()).collect();
        let out = self.device().combine(&views, &coefficients)?;
        let scalars: Vec<&Var<D>> = terms.iter().map(|(_, scalar)| scalar).collect();
        self.push(out, &scalars, move |device, grad_out, grads| {
            coefficients.iter().zip(grads).try_for_each(|(coefficient, grad)| {
                grad.as_mut().map_or(Ok(()), |grad| device.combine_backward(*coefficient, grad_out, grad))
            })
        })
    }
}

/// Returns what the rows with the sums `part` contribute to the importance minimality of a batch with the sums `S` over
/// `n` positions: `Σ_c (part[c]/n) (1 + β log2(1 + k S[c]))`.
fn importance_part(part: &[f32], sums: &[f32], positions: f64, constants: Constants) -> f64 {
    let frequency = |sum: f32| constants.beta * (1.0 + constants.ranks * f64::from(sum)).log2();
    part.iter().zip(sums).map(|(part, sum)| f64::from(*part) / positions * (1.0 + frequency(*sum))).sum()
}
