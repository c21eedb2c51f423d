// Sums: blend, scale_into, add_bias, over_rows, add_span, combine, combine_into. Formulas and CPU twins: sum/mod.rs; the
// last three are small enough to have their twins where they are called (bridge/cpu.rs).

// blend: out[i] = a x[i] + b y[i]. One thread for four numbers; 12 bytes a number, limited by memory (90 %).
extern "C" __global__ void __launch_bounds__(256)
blend(const float *__restrict__ x, float a, const float *__restrict__ y, float b, float *__restrict__ out, u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four p = load4(x, i, n), q = load4(y, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) p.v[k] = fmaf(a, p.v[k], b * q.v[k]);
        store4(out, i, n, p, WRITE);
    }
}

// scale_into: out[i] (+)= a x[i]. One thread for four numbers; 8 or 12 bytes a number, limited by memory (90 %).
extern "C" __global__ void __launch_bounds__(256)
scale_into(float a, const float *__restrict__ x, float *__restrict__ out, u32 n, int add) {
    FOR_EACH_FOUR(i, n) {
        Four p = load4(x, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) p.v[k] *= a;
        store4(out, i, n, p, add);
    }
}

// add_bias: out[f, r] = x[f, r] + bias[f], x [features, rows]. 8 bytes a number, limited by memory (90 %).
extern "C" __global__ void __launch_bounds__(256)
add_bias(const float *__restrict__ x, const float *__restrict__ bias, float *__restrict__ out, u32 rows, u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four p = load4(x, i, n);
#pragma unroll
        for (u32 k = 0; k < 4; k++)
            if (i + k < n) p.v[k] += bias[(i + k) / rows];
        store4(out, i, n, p, WRITE);
    }
}

// over_rows: out[f] += Σ_r x[f, r], in f64. One block a feature; 4 bytes a number, limited by memory (80 %).
extern "C" __global__ void __launch_bounds__(256)
over_rows(const float *__restrict__ x, float *__restrict__ out, u32 rows) {
    double sum = 0.0;
    for (u32 r = threadIdx.x; r < rows; r += blockDim.x) sum += x[blockIdx.x * rows + r];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] += float(sum);
}

// add_span: out[start + i] += x[i]. Single numbers, because `start` may be any; 12 bytes a number (80 %).
extern "C" __global__ void __launch_bounds__(256)
add_span(const float *__restrict__ x, float *__restrict__ out, u32 start, u32 n) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) out[start + i] += x[i];
}

// combine: out[0] = Σ_i coefficient[i] · scalar[i], in f64 and in order; the sum so far comes in `sum`. One thread.
struct Scalars {
    const float *scalar[8];
    double coefficient[8];
    double *sum;
    float *out;
    int count, first;
};

extern "C" __global__ void combine(Scalars s) {
    double sum = s.first ? 0.0 : *s.sum;
    for (int i = 0; i < s.count; i++) sum += s.coefficient[i] * double(*s.scalar[i]);
    *s.sum = sum;
    *s.out = float(sum);
}

// combine_into: out[0] += coefficient · x[0]. One thread.
extern "C" __global__ void combine_into(double coefficient, const float *x, float *out) {
    out[0] += float(coefficient * double(x[0]));
}
