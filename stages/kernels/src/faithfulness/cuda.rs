//! Made of products of matrices (`linear.cu`) and a sum of squares (`squared_error.cu`).

use crate::Store;
use crate::cuda::total::check_scalar;
use crate::cuda::{Launched, Memory, copy, length, memory};
use crate::linear::cuda::{Operand, Product, Runs};
use crate::squared_error;

/// A site's matrices, as [`super::Site`].
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The target's weight, `[d_out, d_in]`.
    pub w: &'a Memory,
    /// The components' input directions, `[d_in, C]`.
    pub v: &'a Memory,
    /// The components' output directions, `[C, d_out]`.
    pub u: &'a Memory,
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
}

impl Site<'_> {
    fn components(&self) -> usize {
        let [w, v, u] = [self.w, self.v, self.u].map(|array| length(array) as usize);
        let components = v.checked_div(self.d_in).unwrap_or(0);
        assert_eq!(
            (w, v, u),
            (self.d_in * self.d_out, self.d_in * components, components * self.d_out),
            "faithfulness: W [{}, {}]",
            self.d_out,
            self.d_in
        );
        components
    }

    /// Writes `W − (VU)ᵀ`, `[d_out, d_in]`.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If the matrices do not fit each other.
    pub fn weight_delta(&self, out: &mut Memory) -> Launched {
        let components = self.components();
        copy(self.w, out)?;
        let (u, v) = (Operand::new(self.u, Runs::Along, self.d_out), Operand::new(self.v, Runs::Deep, components));
        product(u, v, -1.0, None, [self.d_out, self.d_in, components]).launch(out, Store::Add)
    }
}

/// As [`super::forward`], into `out`, `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the matrices do not fit each other.
pub fn forward(site: Site<'_>, out: &mut Memory) -> Launched {
    let mut delta = memory(&site.w.device(), length(site.w) as usize)?;
    site.weight_delta(&mut delta)?;
    squared_error::cuda::sum(&delta, None, out)
}

/// As [`super::backward`], with `grad_out` `[1]`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the gradients do not have the shapes of V and U.
pub fn backward(site: Site<'_>, grad_out: &Memory, grad_v: &mut Memory, grad_u: &mut Memory) -> Launched {
    let components = site.components();
    assert_eq!((length(grad_v), length(grad_u)), (length(site.v), length(site.u)), "faithfulness: gradients");
    check_scalar(grad_out);
    let (d_in, d_out) = (site.d_in, site.d_out);
    let mut delta = memory(&site.w.device(), length(site.w) as usize)?;
    site.weight_delta(&mut delta)?;
    let (down, across) = (Operand::new(&delta, Runs::Along, d_in), Operand::new(&delta, Runs::Deep, d_in));
    let u = Operand::new(site.u, Runs::Deep, d_out);
    product(down, u, -2.0, Some(grad_out), [d_in, components, d_out]).launch(grad_v, Store::Add)?;
    let v = Operand::new(site.v, Runs::Along, components);
    product(v, across, -2.0, Some(grad_out), [components, d_out, d_in]).launch(grad_u, Store::Add)
}

fn product<'a>(
    a: Operand<'a>,
    b: Operand<'a>,
    alpha: f32,
    scale: Option<&'a Memory>,
    shape: [usize; 3],
) -> Product<'a> {
    Product { a, b, bias: None, scale, alpha, shape, groups: 1 }
}
