// squared_error_parts: parts[b] = Σ over block b's elements of (prediction[i] − target[i])², in f64; without a target,
// of prediction[i]². squared_error_backward: ∂prediction[i] (+)= 2 g (prediction[i] − target[i]), g on the device.
//
// One thread for four numbers at a time, 256 threads a block; cuda/total.cu adds the parts. Shared memory: 256 bytes.
// Bytes: 8 a number forward (4 without target), 12 backward (16 when it adds); one subtraction in f32 and one
// multiply-add in f64 a number: limited by memory, about 90 % of its bandwidth expected. CPU twin: squared_error/mod.rs.
extern "C" __global__ void __launch_bounds__(256)
squared_error_parts(const float *__restrict__ prediction, const float *__restrict__ target, double *__restrict__ parts, u32 n) {
    double sum = 0.0;
    FOR_EACH_FOUR(i, n) {
        Four p = load4(prediction, i, n);
        if (target) {
            Four t = load4(target, i, n);
#pragma unroll
            for (int k = 0; k < 4; k++) p.v[k] -= t.v[k];
        }
#pragma unroll
        for (int k = 0; k < 4; k++) sum = fma(double(p.v[k]), double(p.v[k]), sum);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
squared_error_backward(const float *__restrict__ prediction, const float *__restrict__ target, const float *__restrict__ grad_out,
                       float *__restrict__ grad_prediction, u32 n, int add) {
    float factor = 2.0f * *grad_out;
    FOR_EACH_FOUR(i, n) {
        Four p = load4(prediction, i, n), t = load4(target, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) p.v[k] = factor * (p.v[k] - t.v[k]);
        store4(grad_prediction, i, n, p, add);
    }
}
