// The private networks of ci_mlp/mod.rs: z[c, r] = b2[c] + Σ_h w2[c, h] gelu(w1[c, h] x[c, r] + b1[c, h]); x, z [C, R],
// w1, b1, w2 [C, H], b2 [C]. The hidden layer is never written: the backward pass computes it again. CPU twin: cpu.rs.

// ci_mlp_forward. One thread for four rows of one component; a component's weights are the same for all threads of a
// block, so that a read serves a warp. Grid: (R / 1024, C). Bytes: 8 an output; about 33 H operations each: limited by
// arithmetic from H = 4 on, about 70 % of it expected.
extern "C" __global__ void __launch_bounds__(256)
ci_mlp_forward(const float *__restrict__ x, const float *__restrict__ w1, const float *__restrict__ b1,
               const float *__restrict__ w2, const float *__restrict__ b2, float *__restrict__ z, u32 hidden, u32 rows) {
    u32 c = blockIdx.y, r = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (r >= rows) return;
    const float *from = x + c * rows;
    float *to = z + c * rows;
    bool whole = in_fours(x, rows);
    Four a = four_of(from, r, rows - r, whole);
    float sum[4] = {b2[c], b2[c], b2[c], b2[c]};
    for (u32 unit = c * hidden; unit < (c + 1) * hidden; unit++) {
        float weight = w1[unit], bias = b1[unit], out = w2[unit], e;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float h = fmaf(a.v[k], weight, bias);
            sum[k] = fmaf(h * normal(h, &e), out, sum[k]);
        }
    }
    store_four(to, r, rows - r, sum, WRITE, whole);
}

// ci_mlp_backward: ∂x, and each block's share of the weights' gradients in parts [R blocks, 3 C H + C]: of w1, b1, w2 and
// b2 one after the other.
//
// One thread for eight rows of one component, in two fours; the sums over rows of 32 hidden units at a time meet in
// shared memory (1552 bytes): lanes by halves, then warps in order. Grid: (R / 1024, C) blocks of 128. Bytes: 12 an input;
// about 60 H operations each: limited by arithmetic, about 60 % of it expected.
#define UNITS 32

extern "C" __global__ void __launch_bounds__(128)
ci_mlp_backward(const float *__restrict__ x, const float *__restrict__ w1, const float *__restrict__ b1,
                const float *__restrict__ w2, const float *__restrict__ grad_z, float *__restrict__ grad_x, int add,
                float *__restrict__ parts, u32 hidden, u32 rows, u32 components) {
    SHARED(float, sums, 4 * (3 * UNITS + 1));
    u32 c = blockIdx.y, first = blockIdx.x * 1024 + threadIdx.x * 4, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool whole = in_fours(x, rows) && in_fours(grad_z, rows);
    // Rows past the end have no upstream gradient, so they add nothing.
    float values[8], upstream[8], slopes[8] = {}, total = 0.0f;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u32 r = first + half * 512;
        Four a = four_of(x + c * rows, r, left_of(rows, r), whole), g = four_of(grad_z + c * rows, r, left_of(rows, r), whole);
#pragma unroll
        for (int k = 0; k < 4; k++) values[half * 4 + k] = a.v[k], upstream[half * 4 + k] = g.v[k], total += g.v[k];
    }
    u32 size = components * hidden;
    float *part = parts + u64(blockIdx.x) * (3 * size + components);
    total = warp_sum(total);
    if (lane == 0) sums[warp * (3 * UNITS + 1) + 3 * UNITS] = total;
    for (u32 start = 0; start < hidden; start += UNITS) {
        u32 count = min(hidden - start, u32(UNITS));
        for (u32 unit = 0; unit < count; unit++) {
            u32 at = c * hidden + start + unit;
            float weight = w1[at], bias = b1[at], out = w2[at], of_w1 = 0.0f, of_b1 = 0.0f, of_w2 = 0.0f;
#pragma unroll
            for (int k = 0; k < 8; k++) {
                float h = fmaf(values[k], weight, bias), e, cdf = normal(h, &e);
                float at_h = upstream[k] * out * fmaf(h * INV_SQRT_2PI, e, cdf);
                of_w2 = fmaf(upstream[k], h * cdf, of_w2);
                of_w1 = fmaf(at_h, values[k], of_w1);
                of_b1 += at_h;
                slopes[k] = fmaf(at_h, weight, slopes[k]);
            }
            of_w1 = warp_sum(of_w1), of_b1 = warp_sum(of_b1), of_w2 = warp_sum(of_w2);
            if (lane == 0) {
                float *to = sums + warp * (3 * UNITS + 1) + unit;
                to[0] = of_w1, to[UNITS] = of_b1, to[2 * UNITS] = of_w2;
            }
        }
        __syncthreads();
        if (threadIdx.x < 3 * UNITS && lane < count) {
            float sum = 0.0f;
            for (u32 w = 0; w < 4; w++) sum += sums[w * (3 * UNITS + 1) + threadIdx.x];
            part[threadIdx.x / UNITS * size + c * hidden + start + lane] = sum;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (u32 w = 0; w < 4; w++) sum += sums[w * (3 * UNITS + 1) + 3 * UNITS];
        part[3 * size + c] = sum;
    }
    if (!grad_x) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float four[4] = {slopes[half * 4], slopes[half * 4 + 1], slopes[half * 4 + 2], slopes[half * 4 + 3]};
        u32 r = first + half * 512;
        store_four(grad_x + c * rows, r, left_of(rows, r), four, add, in_fours(grad_x, rows));
    }
}

// ci_mlp_weights: adds the parts, in their order, to the gradients of the weights. One thread a weight.
extern "C" __global__ void __launch_bounds__(256)
ci_mlp_weights(const float *__restrict__ parts, u32 count, u32 size, u32 components, float *__restrict__ grad_w1,
               float *__restrict__ grad_b1, float *__restrict__ grad_w2, float *__restrict__ grad_b2) {
    u32 n = 3 * size + components;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float sum = 0.0f;
        for (u32 part = 0; part < count; part++) sum += parts[u64(part) * n + i];
        float *to = i < size ? grad_w1 + i : i < 2 * size ? grad_b1 + (i - size) : i < 3 * size ? grad_w2 + (i - 2 * size)
                                                                                  : grad_b2 + (i - 3 * size);
        *to += sum;
    }
}
