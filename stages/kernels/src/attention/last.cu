// attention_last_forward: y[f, s] = Σ_j p[j] v[f, j], p = softmax_j(Σ_f q[f, s] k[f, j] / √d), the sequence's last query.
// attention_last_backward: ∂v[f, j] += p[j] g[f, s]; with ∂s[j] = p[j] (∂p[j] − Σ p ∂p) / √d, ∂p[j] = Σ_f g[f, s] v[f, j]:
// ∂q[f, s] += Σ_j ∂s[j] k[f, j]; ∂k[f, j] += ∂s[j] q[f, s]; each where wanted.
//
// q, y, g, ∂q [H d, sequences]; k, v, ∂k, ∂v [H d, R]. A block of 256 threads owns a task, one head on one sequence:
// threads share out the keys for the scores, then warps share out the features and their lanes the keys. Probabilities and
// slopes lie in `p` and `slopes` [tasks, length], which only their block touches. Shared memory: 64 bytes. Bytes: 8 d a
// key forward, 12 d to 32 d backward, k and v being read twice there; four to twelve operations for each eight bytes:
// limited by memory, about 60 % of its bandwidth expected from length 256 on. CPU twin: attention/last.rs.
struct Last {
    const float *q, *k, *v, *g;
    float *p, *slopes;
    u32 heads, d, rows, length, sequences;
    float scale;
};

// Adds up or finds the largest number of a block; every thread gets it.
template <bool LARGEST> __device__ __forceinline__ float of_block(float value) {
    SHARED(float, of_warps, 8);
    for (int offset = 16; offset > 0; offset /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, value, offset);
        value = LARGEST ? fmaxf(value, other) : value + other;
    }
    __syncthreads(); // the memory may still be read by an earlier call
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warps[0];
    for (u32 warp = 1; warp < 8; warp++) value = LARGEST ? fmaxf(value, of_warps[warp]) : value + of_warps[warp];
    return value;
}

// Where the block's numbers lie.
struct Task {
    u32 one, many; // the first feature in [H d, sequences] and in [H d, R]
    float *p, *slopes;
    __device__ Task(const Last &a) {
        u32 head = blockIdx.x % a.heads, sequence = blockIdx.x / a.heads;
        one = head * a.d * a.sequences + sequence;
        many = head * a.d * a.rows + sequence * a.length;
        p = a.p + u64(blockIdx.x) * a.length;
        slopes = a.slopes + u64(blockIdx.x) * a.length;
    }
};

// Σ_f x[f] y[f, j].
__device__ __forceinline__ float along_features(const Last &a, const float *x, const float *y, u32 j) {
    float sum = 0.0f;
    for (u32 f = 0; f < a.d; f++) sum = fmaf(x[f * a.sequences], y[f * a.rows + j], sum);
    return sum;
}

// Fills p; each thread reads only what it wrote, until the next barrier.
__device__ __forceinline__ void probabilities(const Last &a, const Task &task) {
    float most = __uint_as_float(0xff800000u);
    for (u32 j = threadIdx.x; j < a.length; j += blockDim.x) {
        float score = along_features(a, a.q + task.one, a.k + task.many, j) * a.scale;
        task.p[j] = score;
        most = fmaxf(most, score);
    }
    most = of_block<true>(most);
    float sum = 0.0f;
    for (u32 j = threadIdx.x; j < a.length; j += blockDim.x) {
        float power = expf(task.p[j] - most);
        task.p[j] = power;
        sum += power;
    }
    float share = 1.0f / of_block<false>(sum);
    for (u32 j = threadIdx.x; j < a.length; j += blockDim.x) task.p[j] *= share;
}

__device__ __forceinline__ float of_warp(float value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

extern "C" __global__ void __launch_bounds__(256) attention_last_forward(Last a, float *y) {
    Task task(a);
    probabilities(a, task);
    __syncthreads();
    u32 lane = threadIdx.x % 32;
    for (u32 f = threadIdx.x / 32; f < a.d; f += 8) {
        float sum = 0.0f;
        for (u32 j = lane; j < a.length; j += 32) sum = fmaf(task.p[j], a.v[task.many + f * a.rows + j], sum);
        sum = of_warp(sum);
        if (lane == 0) y[task.one + f * a.sequences] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_last_backward(Last a, float *grad_q, float *grad_k, float *grad_v) {
    Task task(a);
    probabilities(a, task);
    bool through_scores = grad_q || grad_k;
    if (through_scores) {
        float mean = 0.0f;
        for (u32 j = threadIdx.x; j < a.length; j += blockDim.x) {
            float slope = along_features(a, a.g + task.one, a.v + task.many, j);
            task.slopes[j] = slope;
            mean = fmaf(task.p[j], slope, mean);
        }
        mean = of_block<false>(mean);
        for (u32 j = threadIdx.x; j < a.length; j += blockDim.x)
            task.slopes[j] = task.p[j] * a.scale * (task.slopes[j] - mean);
    }
    __syncthreads();
    u32 lane = threadIdx.x % 32;
    for (u32 f = threadIdx.x / 32; f < a.d; f += 8) {
        float query = a.q[task.one + f * a.sequences], upstream = a.g[task.one + f * a.sequences], sum = 0.0f;
        for (u32 j = lane; j < a.length; j += 32) {
            u32 at = task.many + f * a.rows + j;
            float slope = through_scores ? task.slopes[j] : 0.0f;
            if (grad_q) sum = fmaf(slope, a.k[at], sum);
            if (grad_k) grad_k[at] = fmaf(slope, query, grad_k[at]);
            if (grad_v) grad_v[at] = fmaf(task.p[j], upstream, grad_v[at]);
        }
        sum = of_warp(sum);
        if (grad_q && lane == 0) grad_q[task.one + f * a.sequences] += sum;
    }
}
