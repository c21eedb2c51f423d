// gelu_forward: y[i] = x[i] Φ(x[i]); gelu_backward: ∂x[i] = ∂y[i] (Φ(x[i]) + x[i] φ(x[i])). Formula: gelu/mod.rs.
//
// One thread for four numbers at a time. Bytes: 8 a number forward, 12 backward (16 when it adds): limited by memory,
// about 90 % of its bandwidth expected; some 30 operations a number hide behind it. CPU twin: gelu/mod.rs.
extern "C" __global__ void __launch_bounds__(256)
gelu_forward(const float *__restrict__ x, float *__restrict__ y, u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n);
        float e;
#pragma unroll
        for (int k = 0; k < 4; k++) a.v[k] *= normal(a.v[k], &e);
        store4(y, i, n, a, WRITE);
    }
}

extern "C" __global__ void __launch_bounds__(256)
gelu_backward(const float *__restrict__ x, const float *__restrict__ grad_y, float *__restrict__ grad_x, u32 n, int add) {
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n), g = load4(grad_y, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float e, cdf = normal(a.v[k], &e);
            g.v[k] *= fmaf(a.v[k] * INV_SQRT_2PI, e, cdf);
        }
        store4(grad_x, i, n, g, add);
    }
}
