// layer_norm_forward: y[f, r] = γ[f] x̂[f, r] + β[f], x̂ = (x − mean[r]) inverse[r], inverse = 1 / √(var[r] + ε).
// layer_norm_backward: with h = γ g, ∂x[f, r] += (h − mean_f h − x̂ mean_f(h x̂)) inverse[r]; leaves mean and inverse in
// `statistics` [2, R] where that is wanted; a null ∂x means that nothing else is.
// layer_norm_parameters: ∂γ[f] += Σ_r g[f, r] x̂[f, r], ∂β[f] += Σ_r g[f, r], each where wanted.
//
// x, y, g [d, R], γ, β [d]. A block of 512 threads owns 16 rows: thread (r, s) takes features s, s + 32, … of row r, so
// that memory is read in sectors of 64 bytes; the 32 sums of a row are added in a fixed order. Sums are f64, as on the CPU.
// layer_norm_parameters: one block of 512 threads a feature. Shared memory: 2048 bytes, at most 256 there.
//
// Bytes: 8 a number forward, 12 to 16 backward, and 8 of layer_norm_parameters; x is read three (forward) or four times,
// g twice, from the cache if 16 rows of all blocks fit (50 MB: d up to about 1500). Some 10 to 25 operations in f64 a
// number: about 50 % of the memory's bandwidth expected. CPU twin: layer_norm/mod.rs.
#define ROWS 16
#define SLICES 32

// Adds up the 32 slices of each row; every thread gets its row's sum.
__device__ __forceinline__ double over_slices(double value) {
    SHARED(double, of_warps, 16 * ROWS);
    value += __shfl_xor_sync(0xffffffffu, value, 16); // the other slice of this row in the warp
    __syncthreads(); // the memory may still be read by an earlier call
    if (threadIdx.x % 32 < ROWS) of_warps[threadIdx.x / 32 * ROWS + threadIdx.x % ROWS] = value;
    __syncthreads();
    double sum = 0.0;
    for (u32 warp = 0; warp < 16; warp++) sum += of_warps[warp * ROWS + threadIdx.x % ROWS];
    return sum;
}

// Mean and one over the standard deviation of the thread's row, which may be past the end.
__device__ __forceinline__ void moments(const float *__restrict__ x, u32 d, u32 rows, u32 r, double *mean, double *inverse) {
    u32 end = r < rows ? d : 0;
    double sum = 0.0;
    for (u32 f = threadIdx.x / ROWS; f < end; f += SLICES) sum += double(x[f * rows + r]);
    *mean = over_slices(sum) / d;
    sum = 0.0;
    for (u32 f = threadIdx.x / ROWS; f < end; f += SLICES) {
        double difference = double(x[f * rows + r]) - *mean;
        sum = fma(difference, difference, sum);
    }
    *inverse = 1.0 / sqrt(over_slices(sum) / d + 1e-5);
}

extern "C" __global__ void __launch_bounds__(512)
layer_norm_forward(const float *__restrict__ x, const float *__restrict__ scale, const float *__restrict__ shift,
                   float *__restrict__ y, u32 d, u32 rows) {
    u32 r = blockIdx.x * ROWS + threadIdx.x % ROWS;
    double mean, inverse;
    moments(x, d, rows, r, &mean, &inverse);
    if (r >= rows) return;
    for (u32 f = threadIdx.x / ROWS; f < d; f += SLICES) {
        double normal = (double(x[f * rows + r]) - mean) * inverse;
        y[f * rows + r] = float(fma(normal, double(scale[f]), double(shift[f])));
    }
}

extern "C" __global__ void __launch_bounds__(512)
layer_norm_backward(const float *__restrict__ x, const float *__restrict__ scale, const float *__restrict__ grad_y,
                    float *__restrict__ grad_x, double *__restrict__ statistics, u32 d, u32 rows) {
    u32 r = blockIdx.x * ROWS + threadIdx.x % ROWS;
    double mean, inverse;
    moments(x, d, rows, r, &mean, &inverse);
    if (statistics && r < rows && threadIdx.x < ROWS) {
        statistics[r] = mean;
        statistics[rows + r] = inverse;
    }
    if (!grad_x) return;
    u32 end = r < rows ? d : 0;
    double sum = 0.0, product = 0.0;
    for (u32 f = threadIdx.x / ROWS; f < end; f += SLICES) {
        double h = double(grad_y[f * rows + r]) * double(scale[f]);
        sum += h;
        product = fma(h, (double(x[f * rows + r]) - mean) * inverse, product);
    }
    sum = over_slices(sum) / d;
    product = over_slices(product) / d;
    for (u32 f = threadIdx.x / ROWS; f < end; f += SLICES) {
        double h = double(grad_y[f * rows + r]) * double(scale[f]);
        double normal = (double(x[f * rows + r]) - mean) * inverse;
        grad_x[f * rows + r] += float((h - sum - normal * product) * inverse);
    }
}

extern "C" __global__ void __launch_bounds__(512)
layer_norm_parameters(const float *__restrict__ x, const float *__restrict__ grad_y, const double *__restrict__ statistics,
                      float *__restrict__ grad_scale, float *__restrict__ grad_shift, u32 rows) {
    u32 f = blockIdx.x;
    double scale = 0.0, shift = 0.0;
    for (u32 r = threadIdx.x; r < rows; r += blockDim.x) {
        double g = grad_y[f * rows + r];
        shift += g;
        if (grad_scale) scale = fma(g, (double(x[f * rows + r]) - statistics[r]) * statistics[rows + r], scale);
    }
    if (grad_scale) {
        scale = block_sum(scale);
        if (threadIdx.x == 0) grad_scale[f] += float(scale);
    }
    if (grad_shift) {
        shift = block_sum(shift);
        if (threadIdx.x == 0) grad_shift[f] += float(shift);
    }
}
