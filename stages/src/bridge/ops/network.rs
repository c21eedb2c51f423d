//! The causal-importance networks' layers.

use super::super::backend::{Backend, GroupedShape};
use super::super::graph::{DeviceResult, Graph, Var};

impl<D: Backend> Graph<D> {
    /// Returns the outputs of the components' private networks with one hidden layer, fused.
    ///
    /// `x` `(C, R)`; `w1`, `b1`, `w2` `(C, H)`; `b2` `(C, 1)`.
    pub fn ci_mlp(&self, x: &Var<D>, [w1, b1, w2, b2]: [&Var<D>; 4]) -> DeviceResult<Var<D>, D> {
        let shape = x.shape();
        let weights = [w1.view().clone(), b1.view().clone(), w2.view().clone(), b2.view().clone()];
        let out = self.device().ci_mlp(x.view(), &weights, shape)?;
        let view = x.view().clone();
        let inputs: [&Var<D>; 5] = [x, w1, b1, w2, b2];
        // All weights are leaves of one network: either all want a gradient, or none does.
        let trained = inputs[1..].iter().all(|weight| weight.is_traced());
        assert!(
            trained || !inputs[1..].iter().any(|weight| weight.is_traced()),
            "a network is trained whole or not at all"
        );
        if !trained {
            assert!(!x.is_traced(), "a frozen network's input has no gradient");
        }
        self.push(out, &inputs, move |device, grad_out, grads| {
            let [grad_x, Some(w1), Some(b1), Some(w2), Some(b2)] = grads else {
                unreachable!("five inputs, weights trained")
            };
            device.ci_mlp_backward(&view, &weights, shape, grad_out, grad_x.as_mut(), [w1, b1, w2, b2])
        })
    }

    /// Returns `y[c] = W[c]ᵀ x[c] + b[c]` for the components side by side.
    ///
    /// `w` holds `[C, inputs, outputs]` as `(C, inputs·outputs)`, `b` `(C, outputs)`; `x` is `(C·inputs, R)`, or
    /// `(inputs, R)` read by every component if `shared`. The result is `(C·outputs, R)`.
    pub fn grouped_linear(&self, x: &Var<D>, w: &Var<D>, b: &Var<D>, shared: bool) -> DeviceResult<Var<D>, D> {
        let x = &self.dense(x)?;
        let ((groups, per_group), (b_groups, outputs)) = (w.shape(), b.shape());
        let (features, rows) = x.shape();
        let inputs = if shared { features } else { features / groups.max(1) };
        assert_eq!((groups, inputs * outputs), (b_groups, per_group), "grouped linear: weights and biases");
        let layout = GroupedShape { groups, inputs, outputs, rows, shared };
        let (x, w) = (&self.operand(x)?, &self.operand(w)?);
        let out = self.device().grouped_linear(x.view(), w.view(), b.view(), layout)?;
        let (x_view, w_view) = (x.view().clone(), w.view().clone());
        if !w.is_traced() {
            assert!(!x.is_traced(), "a frozen network's input has no gradient");
        }
        self.push(out, &[x, w, b], move |device, grad_out, grads| {
            let [grad_x, Some(grad_w), Some(grad_b)] = grads else { unreachable!("three inputs, weights trained") };
            device.grouped_linear_backward(&x_view, &w_view, layout, grad_out, grad_x.as_mut(), grad_w, grad_b)
        })
    }
}
