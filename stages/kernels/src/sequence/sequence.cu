// add_to_positions: out[f, s·length + p] = x[f, s·length + p] + constant[f, p], x [d, rows], constant [d, length].
// last: out[i] = x[i·length + length − 1]; last_backward: ∂x there += ∂out[i].
//
// One thread for four numbers at a time (add_to_positions) or one (last, last_backward), 256 threads a block. Bytes: 8 a
// number for add_to_positions, whose constants stay in the cache: about 85 % of the memory's bandwidth expected; 36 a
// number for last, which reads 32 bytes to use four (68 for last_backward): limited by memory. CPU twin: sequence/mod.rs.
extern "C" __global__ void __launch_bounds__(256)
add_to_positions(const float *__restrict__ x, const float *__restrict__ constant, float *__restrict__ out, u32 rows, u32 length,
                 u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four four = load4(x, i, n);
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            // Sequences do not straddle features, so that the position is the same counted over the whole array.
            if (i + k < n) four.v[k] += constant[(i + k) / rows * length + (i + k) % length];
        }
        store4(out, i, n, four, WRITE);
    }
}

extern "C" __global__ void __launch_bounds__(256)
last(const float *__restrict__ x, float *__restrict__ out, u32 length, u32 n) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i] = x[i * length + length - 1];
}

extern "C" __global__ void __launch_bounds__(256)
last_backward(const float *__restrict__ grad_out, float *__restrict__ grad_x, u32 length, u32 n) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        grad_x[i * length + length - 1] += grad_out[i];
}
