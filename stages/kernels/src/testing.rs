//! What the tests of this crate share: seeded inputs, comparison that fails on NaN, finite differences, exact erf.

/// Returns `n` values in [-2, 2) with a few exact zeros and outliers, the same for the same `seed`.
pub(crate) fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let unit = (state >> 40) as f32 / (1_u64 << 24) as f32;
            match i % 17 {
                5 => 0.0,
                11 => 6.0 * unit - 3.0,
                _ => 4.0 * unit - 2.0,
            }
        })
        .collect()
}

/// Asserts `|a − b| <= atol + rtol·|b|` for every element, `b` the reference; NaN fails.
#[track_caller]
pub(crate) fn assert_close(name: &str, a: &[f32], b: &[f64], rtol: f64, atol: f64) {
    assert_eq!(a.len(), b.len(), "{name}: lengths");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let bound = atol + rtol * b.abs();
        let error = (f64::from(*a) - b).abs();
        assert!(error <= bound, "{name}[{i}]: {a}, reference {b}, off by {error:e}, allowed {bound:e}");
    }
}

/// Returns the central difference of `f` in every coordinate of `at`, h = 6e-6.
pub(crate) fn slopes(at: &[f32], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    const H: f64 = 6e-6;
    let mut point: Vec<f64> = at.iter().map(|x| f64::from(*x)).collect();
    (0..at.len())
        .map(|i| {
            let middle = point[i];
            point[i] = middle + H;
            let above = f(&point);
            point[i] = middle - H;
            let below = f(&point);
            point[i] = middle;
            (above - below) / (2.0 * H)
        })
        .collect()
}

/// Widens to f64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Returns the exact GELU in f64.
pub(crate) fn erf_gelu(x: f64) -> f64 {
    x * normal_cdf(x)
}

/// Returns the slope of the exact GELU.
pub(crate) fn erf_gelu_slope(x: f64) -> f64 {
    normal_cdf(x) + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Returns `Φ(x)` to about 1e-15: a power series near zero, a continued fraction in the tails.
fn normal_cdf(x: f64) -> f64 {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x.abs() < 3.0 {
        // Φ(x) = 1/2 + φ(x) (x + x³/3 + x⁵/15 + …)
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-18 * sum.abs() {
            k += 2.0;
            term *= x * x / k;
            sum += term;
        }
        0.5 + density * sum
    } else {
        // Q(a) = φ(a) / (a + 1/(a + 2/(a + 3/(a + …))))
        let a = x.abs();
        let tail = density / (1..200).rev().fold(a, |below, k| a + f64::from(k) / below);
        if x > 0.0 { 1.0 - tail } else { tail }
    }
}

/// Returns the first GPU with the kernels of `modules`.
///
/// # Panics
/// If there is no GPU that works, or it refuses the kernels.
#[cfg(feature = "cuda")]
pub(crate) fn cuda_device(modules: &[&crate::cuda::Module]) -> crate::cuda::Handle {
    let found = cudarc::driver::result::init().and_then(|()| cudarc::driver::CudaDevice::new(0));
    let device = found.unwrap_or_else(|error| panic!("tests with the feature `cuda` need a GPU that works: {error:?}"));
    crate::cuda::load(&device, modules).unwrap_or_else(|error| panic!("{error}"));
    device
}

/// Returns a new array on the device with the given numbers.
#[cfg(feature = "cuda")]
#[track_caller]
pub(crate) fn on_device(device: &crate::cuda::Handle, data: &[f32]) -> crate::cuda::Memory {
    crate::cuda::upload(device, data).expect("memory on the GPU")
}

/// Returns a new array of NaN on the device, for results that are to be written.
#[cfg(feature = "cuda")]
#[track_caller]
pub(crate) fn unwritten(device: &crate::cuda::Handle, length: usize) -> crate::cuda::Memory {
    on_device(device, &vec![f32::NAN; length])
}

/// Returns an array's numbers, once every kernel before has run.
#[cfg(feature = "cuda")]
#[track_caller]
pub(crate) fn from_device(array: &crate::cuda::Memory) -> Vec<f32> {
    crate::cuda::download(array).expect("the kernels ran")
}
