// With S[c] = Σ_r w[r] (u[c, r] + ε)^p and n positions (mod.rs):
// importance_sums: sums[c] = S[c], in f64.
// importance_value: out[0] = Σ_c S[c]/n (1 + β log2(1 + k S[c])), in f64.
// importance_slopes: slopes[c] = g/n (1 + β (log2(1 + k S[c]) + k S[c] / ((1 + k S[c]) ln 2))), g on the device.
// importance_backward: ∂u[c, r] (+)= slopes[c] w[r] p (u[c, r] + ε)^(p − 1).
//
// u [C, R], weights [R] or none, row-major f32. importance_sums: one block of 256 threads a component, thread t adds rows
// t, t + 256, …, block_sum the threads; importance_value: one block; importance_slopes: one thread a component;
// importance_backward: one thread for four numbers at a time. Shared memory: 256 bytes. Bytes: 4 a number forward, 8
// backward (12 when it adds), weights stay in the cache: with p = 1 or 2 limited by memory, 80 % of its bandwidth
// expected; else by the some 60 operations of a power, about half of it. CPU twin: mod.rs.
struct Constants {
    double beta, ranks;
    float p, eps;
};

// x^exponent; a test that all threads decide alike.
__device__ __forceinline__ float power(float x, float exponent) {
    return exponent == 0.0f ? 1.0f : exponent == 1.0f ? x : exponent == 2.0f ? x * x : powf(x, exponent);
}

extern "C" __global__ void __launch_bounds__(256)
importance_sums(const float *__restrict__ u, const float *__restrict__ weights, Constants constants, float *__restrict__ sums,
                u32 rows) {
    const float *own = u + u64(blockIdx.x) * rows;
    double sum = 0.0;
    for (u32 r = threadIdx.x; r < rows; r += blockDim.x) {
        float term = power(own[r] + constants.eps, constants.p);
        sum += weights ? weights[r] * term : term;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = float(sum);
}

extern "C" __global__ void __launch_bounds__(256)
importance_value(const float *__restrict__ sums, u32 components, double positions, Constants constants, float *__restrict__ out) {
    double value = 0.0;
    for (u32 c = threadIdx.x; c < components; c += blockDim.x) {
        double s = sums[c];
        double frequency = constants.beta == 0.0 ? 0.0 : constants.beta * log2(1.0 + constants.ranks * s);
        value += s / positions * (1.0 + frequency);
    }
    value = block_sum(value);
    if (threadIdx.x == 0) out[0] = float(value);
}

extern "C" __global__ void __launch_bounds__(256)
importance_slopes(const float *__restrict__ sums, u32 components, double positions, Constants constants,
                  const float *__restrict__ grad_out, float *__restrict__ slopes) {
    u32 c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= components) return;
    double s = sums[c], inside = 1.0 + constants.ranks * s, frequency = 0.0;
    if (constants.beta != 0.0)
        frequency = constants.beta * (log2(inside) + s * constants.ranks / (inside * 0.693147180559945309417));
    slopes[c] = float(double(*grad_out) / positions * (1.0 + frequency));
}

extern "C" __global__ void __launch_bounds__(256)
importance_backward(const float *__restrict__ u, const float *__restrict__ weights, float p, float eps,
                    const float *__restrict__ slopes, float *__restrict__ grad_u, u32 rows, u32 n, int add) {
    FOR_EACH_FOUR(i, n) {
        Four four = load4(u, i, n);
        u32 c = i / rows, r = i % rows;
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            if (i + k < n) {
                float slope = p == 1.0f ? 1.0f : p * power(four.v[k] + eps, p - 1.0f);
                float factor = weights ? slopes[c] * weights[r] : slopes[c];
                four.v[k] = factor * slope;
            }
            if (++r == rows) r = 0, c++;
        }
        store4(grad_u, i, n, four, add);
    }
}
