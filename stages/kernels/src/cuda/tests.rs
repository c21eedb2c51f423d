//! The twins of products, draws, networks and elementwise operations beside those on the processor; and faults that
//! were planted in kernels, which the emulated device finds.

use super::{Memory, Module, load};
use crate::sigmoid::Sigmoid;
use crate::testing::{assert_close, cuda_device, from_device, on_device, unwritten, values, wide};
use crate::{Store, bf16, ci_mlp, gelu, linear, philox, relu, rows, sigmoid, sum, transpose};

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
fn functions_of_one_number_and_their_gradients_agree() {
    let device = cuda_device(&[&gelu::cuda::MODULE, &relu::cuda::MODULE, &sigmoid::cuda::MODULE, &bf16::cuda::MODULE]);
    let alpha = 0.01;
    let sigmoids = [Sigmoid::Normal, Sigmoid::Hard, Sigmoid::LeakyHard { alpha }, Sigmoid::UpperLeakyHard { alpha }];
    for n in [0, 1, 3, 251, 1030] {
        let (x, upstream) = (values(1, n), values(2, n));
        let (x_there, upstream_there) = (on_device(&device, &x), on_device(&device, &upstream));
        // What the processor makes of x and of the upstream gradient, and the device in the memory that it is given.
        let agree = |name: &str, expected: [Vec<f32>; 2], forward: Forward<'_>, backward: Backward<'_>| {
            let [expected, gradient] = expected;
            let mut out = unwritten(&device, n);
            forward(&x_there, &mut out).expect("a launch");
            // exp and erf differ in their last bits.
            assert_close(name, &from_device(&out), &wide(&expected), 1e-5, 1e-6);
            for (store, held) in [(Store::Write, f32::NAN), (Store::Add, 0.5)] {
                let mut out = on_device(&device, &vec![held; n]);
                backward(&x_there, &upstream_there, &mut out, store).expect("a launch");
                let added = if store == Store::Add { 0.5 } else { 0.0 };
                let expected: Vec<f64> = wide(&gradient).iter().map(|x| x + added).collect();
                assert_close(name, &from_device(&out), &expected, 1e-5, 1e-5);
            }
        };
        let of = |forward: &dyn Fn(&mut [f32]), backward: &dyn Fn(&mut [f32])| {
            let mut both = [vec![f32::NAN; n], vec![f32::NAN; n]];
            forward(&mut both[0]);
            backward(&mut both[1]);
            both
        };
        let expected = of(&|out| gelu::forward(&x, out), &|out| gelu::backward(&x, &upstream, out, Store::Write));
        agree("gelu", expected, &gelu::cuda::forward, &gelu::cuda::backward);
        let expected = of(&|out| relu::forward(&x, out), &|out| relu::backward(&x, &upstream, out, Store::Write));
        agree("relu", expected, &relu::cuda::forward, &relu::cuda::backward);
        for function in sigmoids {
            let expected = of(&|out| sigmoid::forward(function, &x, out), &|out| {
                sigmoid::backward(function, &x, &upstream, out, Store::Write);
            });
            let forward = |x: &Memory, out: &mut Memory| sigmoid::cuda::forward(function, x, out);
            let backward = |x: &Memory, upstream: &Memory, out: &mut Memory, store| {
                sigmoid::cuda::backward(function, x, upstream, out, store)
            };
            agree(&format!("{function:?}"), expected, &forward, &backward);
        }
        let expected = of(&|out| bf16::forward(&x, out), &|out| bf16::forward(&upstream, out));
        let forward = |x: &Memory, out: &mut Memory| bf16::cuda::round(x, out, Store::Write);
        let backward = |_: &Memory, upstream: &Memory, out: &mut Memory, store| bf16::cuda::round(upstream, out, store);
        agree("bf16", expected, &forward, &backward);
    }
}

type Forward<'a> = &'a dyn Fn(&Memory, &mut Memory) -> super::Launched;
type Backward<'a> = &'a dyn Fn(&Memory, &Memory, &mut Memory, Store) -> super::Launched;

#[test]
fn sums_and_spans_agree() {
    let device = cuda_device(&[&sum::cuda::MODULE, &rows::cuda::MODULE]);
    for (features, count) in [(1, 1), (3, 37), (5, 1030), (2, 0)] {
        let n = features * count;
        let (x, y, column) = (values(1, n), values(2, n), values(3, features));
        let [x_there, y_there, column_there] = [&x, &y, &column].map(|x| on_device(&device, x));
        let (mut expected, mut out) = (vec![f32::NAN; n], unwritten(&device, n));
        sum::blend(&x, 0.25, &y, -1.5, &mut expected);
        sum::cuda::blend(&x_there, 0.25, &y_there, -1.5, &mut out).expect("a launch");
        // Products and sum are rounded together or apart.
        assert_close("blend", &from_device(&out), &wide(&expected), 1e-6, 1e-6);
        for store in [Store::Write, Store::Add] {
            sum::backward(0.5, &x, &mut expected, store);
            sum::cuda::backward(0.5, &x_there, &mut out, store).expect("a launch");
            assert_close("scaled", &from_device(&out), &wide(&expected), 1e-6, 1e-6);
        }
        rows::cuda::repeat(&column_there, &mut out).expect("a launch");
        let repeated: Vec<f32> = column.iter().flat_map(|x| vec![*x; count]).collect();
        assert_eq!(from_device(&out), repeated);
        let (mut sums, mut sums_there) = (values(4, count), on_device(&device, &values(4, count)));
        rows::scale_backward(&x, &vec![1.0; count], &y, None, Some(&mut sums));
        rows::cuda::add_products(&x_there, &y_there, &mut sums_there).expect("a launch");
        assert_close("products", &from_device(&sums_there), &wide(&sums), 1e-6, 1e-5);
        let mut longer = on_device(&device, &vec![1.0; n + 5]);
        sum::cuda::add_span(&x_there, &mut longer, 3).expect("a launch");
        let ones = |count| vec![1.0; count];
        let expected = [ones(3), x.iter().map(|x| 1.0 + x).collect(), ones(2)].concat();
        assert_eq!(from_device(&longer), expected);
    }
    let (three, mut out) = (on_device(&device, &[3.0]), on_device(&device, &[1.0]));
    sum::cuda::combine_backward(0.5, &three, &mut out).expect("a launch");
    assert_eq!(from_device(&out), [2.5]); // 1 + 0.5 · 3
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
