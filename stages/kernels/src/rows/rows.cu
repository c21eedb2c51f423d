// One factor for each row of the batch, and one number for all rows. Formulas and CPU twins: rows/mod.rs; x is [features,
// rows].

// scale_rows: out[f, r] (+)= s[r] x[f, r]. One thread for four numbers; 8 bytes a number (12 when it adds), limited by
// memory (90 %).
extern "C" __global__ void __launch_bounds__(256)
scale_rows(const float *__restrict__ x, const float *__restrict__ factors, float *__restrict__ out, u32 rows, u32 n, int add) {
    FOR_EACH_FOUR(i, n) {
        Four p = load4(x, i, n);
        u32 r = i % rows;
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            p.v[k] *= factors[r];
            r = r + 1 == rows ? 0 : r + 1;
        }
        store4(out, i, n, p, add);
    }
}

// row_products: out[r] += Σ_f x[f, r] y[f, r], f in order. One thread a row; 8 bytes a number; few rows leave most of
// the device idle.
extern "C" __global__ void __launch_bounds__(256)
row_products(const float *__restrict__ x, const float *__restrict__ y, float *__restrict__ out, u32 rows, u32 features) {
    u32 r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    float sum = out[r];
    for (u32 f = 0; f < features; f++) sum = fmaf(x[f * rows + r], y[f * rows + r], sum);
    out[r] = sum;
}

// repeat_rows: out[f, r] = x[f]. One thread for four numbers; 4 bytes a number, limited by memory (90 %).
extern "C" __global__ void __launch_bounds__(256)
repeat_rows(const float *__restrict__ x, float *__restrict__ out, u32 rows, u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four p;
#pragma unroll
        for (u32 k = 0; k < 4; k++) p.v[k] = i + k < n ? x[(i + k) / rows] : 0.0f;
        store4(out, i, n, p, WRITE);
    }
}
