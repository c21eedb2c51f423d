//! The twins of products, draws, networks and elementwise operations beside those on the processor; and faults that
//! were planted in kernels, which the emulated device finds.

use super::{Memory, Module, load};
use crate::testing::{assert_close, cuda_device, from_device, on_device, unwritten, values, wide};
use crate::{Store, ci_mlp, linear, philox, rows, sum, transpose};

/// One, odd, a prime, a multiple of a tile and one more; and nothing.
const SHAPES: [[usize; 3]; 7] =
    [[1, 1, 1], [2, 5, 17], [20, 64, 128], [65, 67, 131], [3, 4, 1030], [0, 3, 4], [3, 0, 4]];

type OnCpu = fn(&[f32], &[f32], &mut [f32], [usize; 3], Store);
/// The lengths of operands and result for a shape [m, n, rows].
type Lengths = fn([usize; 3]) -> [usize; 3];
type OnGpu = fn(&Memory, &Memory, &mut Memory, [usize; 3], Store) -> super::Launched;

#[test]
fn products_agree_written_and_added() {
    let device = cuda_device(&[&linear::cuda::MODULE]);
    let products: [(&str, OnCpu, OnGpu, Lengths); 3] = [
        ("apply", linear::apply, linear::cuda::apply, |[m, n, r]| [m * n, n * r, m * r]),
        ("apply_transposed", linear::apply_transposed, linear::cuda::apply_transposed, |[m, n, r]| {
            [n * m, n * r, m * r]
        }),
        ("outer", linear::outer, linear::cuda::outer, |[m, n, r]| [m * r, n * r, m * n]),
    ];
    for (name, on_cpu, on_gpu, lengths) in products {
        for shape in SHAPES {
            let [a, b, out] = lengths(shape);
            let (a, b, mut expected) = (values(1, a), values(2, b), vec![f32::NAN; out]);
            on_cpu(&a, &b, &mut expected, shape, Store::Write);
            let mut result = unwritten(&device, out);
            let (a_there, b_there) = (on_device(&device, &a), on_device(&device, &b));
            on_gpu(&a_there, &b_there, &mut result, shape, Store::Write).expect("a launch");
            // Up to 1030 products of numbers up to 3, each rounded at 6e-8.
            assert_close(name, &from_device(&result), &wide(&expected), 1e-5, 1e-3);
            on_gpu(&a_there, &b_there, &mut result, shape, Store::Add).expect("a launch");
            let twice: Vec<f64> = wide(&expected).iter().map(|x| 2.0 * x).collect();
            assert_close(name, &from_device(&result), &twice, 1e-5, 2e-3);
        }
    }
}

#[test]
fn draws_have_the_same_bits() {
    let device = cuda_device(&[&philox::cuda::MODULE]);
    let stream = philox::Stream { seed: 0x1234_5678_9abc_def0, purpose: 7, step: 11, index: 3 };
    for (features, count) in [(1, 1), (7, 65), (40, 130), (5, 0), (0, 5)] {
        let numbers: Vec<u32> = (0..count as u32).map(|r| r * 37 + 5).collect();
        let mut expected = vec![0.0; features * numbers.len()];
        philox::uniform(stream, features, &numbers, &mut expected);
        let mut draws = unwritten(&device, expected.len());
        let there = super::upload_numbers(&device, &numbers).expect("memory on the GPU");
        philox::cuda::uniform(stream, features, &there, &mut draws).expect("a launch");
        assert_eq!(from_device(&draws), expected);
    }
}

#[test]
fn private_networks_and_their_gradients_agree() {
    let device = cuda_device(&[&ci_mlp::cuda::MODULE]);
    for (components, hidden, count) in [(1, 1, 1), (3, 5, 131), (2, 16, 1030), (4, 33, 64), (2, 3, 0)] {
        let units = components * hidden;
        let weights = [values(1, units), values(2, units), values(3, units), values(4, components)];
        let (x, upstream) = (values(5, components * count), values(6, components * count));
        let [w1, b1, w2, b2] = &weights;
        let on_cpu = ci_mlp::Weights { w1, b1, w2, b2 };
        let there = weights.each_ref().map(|weight| on_device(&device, weight));
        let (x_there, up_there) = (on_device(&device, &x), on_device(&device, &upstream));

        let mut z = vec![f32::NAN; x.len()];
        ci_mlp::forward(&x, on_cpu, &mut z, count);
        let mut out = unwritten(&device, x.len());
        ci_mlp::cuda::forward(&x_there, there.each_ref(), &mut out, count).expect("a launch");
        // Up to 33 terms of up to 18, 2e-7 each.
        assert_close("z", &from_device(&out), &wide(&z), 1e-5, 5e-5);

        let mut grads = weights.each_ref().map(|weight| vec![0.5; weight.len()]);
        let mut grads_there = grads.each_ref().map(|grad| on_device(&device, grad));
        let mut grad_x = vec![f32::NAN; x.len()];
        let mut grad_x_there = unwritten(&device, x.len());
        let [w1, b1, w2, b2] = &mut grads;
        let to = ci_mlp::WeightGradients { w1, b1, w2, b2 };
        ci_mlp::backward(&x, on_cpu, &upstream, Some((&mut grad_x, Store::Write)), to, count);
        let to = Some((&mut grad_x_there, Store::Write));
        let gradients = grads_there.each_mut();
        ci_mlp::cuda::backward(&x_there, there.each_ref(), &up_there, to, gradients, count).expect("a launch");
        assert_close("∂x", &from_device(&grad_x_there), &wide(&grad_x), 1e-5, 1e-4);
        for (there, here) in grads_there.iter().zip(&grads) {
            // Sums over up to 1030 rows.
            assert_close("∂w", &from_device(there), &wide(here), 1e-5, 5e-3);
        }
    }
}

#[test]
fn elementwise_operations_agree() {
    let device = cuda_device(&[&sum::cuda::MODULE, &rows::cuda::MODULE, &transpose::cuda::MODULE]);
    for (features, count) in [(1, 1), (3, 37), (5, 1030), (40, 64), (2, 0)] {
        let (x, bias, factors) = (values(1, features * count), values(2, features), values(3, count));
        let there = [&x, &bias, &factors].map(|x| on_device(&device, x));
        let mut expected = vec![f32::NAN; x.len()];
        let mut out = unwritten(&device, x.len());

        sum::add_bias(&x, &bias, &mut expected);
        sum::cuda::add_bias(&there[0], &there[1], &mut out).expect("a launch");
        assert_eq!(from_device(&out), expected);
        rows::scale(&x, &factors, &mut expected);
        rows::cuda::scale(&there[0], &there[2], &mut out, Store::Write).expect("a launch");
        assert_eq!(from_device(&out), expected);
        transpose::transpose(&x, features, count, &mut expected, Store::Write);
        transpose::cuda::transpose(&there[0], features, count, &mut out, Store::Write).expect("a launch");
        assert_eq!(from_device(&out), expected);

        let (mut sums, mut sums_there) = (bias.clone(), on_device(&device, &bias));
        sum::over_rows(&x, &mut sums);
        sum::cuda::over_rows(&there[0], &mut sums_there).expect("a launch");
        assert_close("sums over rows", &from_device(&sums_there), &wide(&sums), 1e-6, 1e-5);
    }
    let scalars: Vec<Memory> = (0..11).map(|i| on_device(&device, &[i as f32])).collect();
    let mut total = unwritten(&device, 1);
    sum::cuda::combine(&scalars.iter().collect::<Vec<_>>(), &[0.5; 11], &mut total).expect("a launch");
    assert_eq!(from_device(&total), [27.5]); // half of 0 + 1 + … + 10
}

#[test]
fn files_say_what_they_need() {
    // For `stages/kernels/cuda/report`, which reads the files alone.
    for module in super::MODULES {
        assert_eq!(module.text.contains("\n// needs: tile.cuh\n"), !module.needs.is_empty(), "{}.cu", module.name);
    }
}

/// Returns whether the transpose runs with `from` replaced by `to` in its kernel.
fn runs_with(name: &'static str, from: &str, to: &str) -> bool {
    let text = transpose::cuda::MODULE.text.replace(from, to);
    assert!(text != transpose::cuda::MODULE.text || from == to, "the fault is planted");
    // Tests end with the process, and so may their modules.
    let text = Box::leak(text.into_boxed_str());
    let module = Module { name, text, ..transpose::cuda::MODULE };
    let device = cuda_device(&[]);
    load(&device, &[&module]).expect("it compiles");
    let (x, mut out) = (on_device(&device, &values(1, 40 * 70)), unwritten(&device, 40 * 70));
    let kernel = super::function(&device, &module, "transpose");
    let blocks = super::grid([70_u32.div_ceil(32), 40_u32.div_ceil(32), 1], 256);
    // SAFETY: as the launcher's; the faults are for the emulated device, which bears them.
    unsafe { cudarc::driver::LaunchAsync::launch(kernel, blocks, (&x, &mut out, 40_u32, 70_u32, 0_i32)) }.is_ok()
}

#[test]
fn planted_faults_are_found() {
    use cudarc::driver::CudaDevice;
    cuda_device(&[]);
    // A GPU would go on with wrong numbers, or take the whole process down.
    if std::env::var_os("SPDFLOW_EMULATOR_CACHE").is_none()
        || std::env::var("SPDFLOW_EMULATOR_CHECK").is_ok_and(|c| c == "0")
    {
        eprintln!("skipped: faults are planted on the emulated device with its checker only");
        return;
    }
    assert!(CudaDevice::count().is_ok());
    assert!(runs_with("sound", "", ""));
    assert!(!runs_with("no_barrier", "__syncthreads();", ""), "a missing barrier");
    assert!(!runs_with("reads_past", "row + i < rows && col", "row + i <= rows && col"), "a read past the end");
    assert!(!runs_with("writes_past", "col + i < cols && row", "col + i <= cols && row"), "a write past the end");
    assert!(!runs_with("past_shared", "32 * 33)", "31 * 33)"), "past the end of shared memory");
}
