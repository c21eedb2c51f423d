// relu_forward: y[i] = max(x[i], 0); relu_backward: ∂x[i] = ∂y[i] where x[i] > 0. Formula: relu/mod.rs, also the CPU twin.
//
// One thread for four numbers at a time. Bytes: 8 a number forward, 12 backward (16 when it adds): limited by memory,
// about 90 % of its bandwidth expected.
extern "C" __global__ void __launch_bounds__(256)
relu_forward(const float *__restrict__ x, float *__restrict__ y, u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) a.v[k] = a.v[k] > 0.0f ? a.v[k] : 0.0f;
        store4(y, i, n, a, WRITE);
    }
}

extern "C" __global__ void __launch_bounds__(256)
relu_backward(const float *__restrict__ x, const float *__restrict__ grad_y, float *__restrict__ grad_x, u32 n, int add) {
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n), g = load4(grad_y, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) g.v[k] = a.v[k] > 0.0f ? g.v[k] : 0.0f;
        store4(grad_x, i, n, g, add);
    }
}
