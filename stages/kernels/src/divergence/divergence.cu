// Losses of logits [V, R], one column a position (divergence/mod.rs). With z(x) = ln Σ_v e^{x_v}:
// KL[r] = Σ_v p_v ((t_v − z(t)) − (x_v − z(x))), p = softmax(t);   ∂x_v += g (e^{x_v − z(x)} − e^{t_v − z(t)})
// CE[r] = z(x) − x_label, nothing where the label is negative;     ∂x_v += g (e^{x_v − z(x)} − [v = label])
//
// Forward in three stages, all in f64, since close models differ in the last digits of f32. {kl,cross_entropy}_parts: a
// block of 256 threads takes 32 rows and `span` of the V logits; thread (r, s) takes every eighth and keeps the largest
// logit so far, to which its sums refer; the eight are joined in order. {kl,cross_entropy}_rows: one thread a row joins
// the `splits` spans in order and writes z (f32: of x, then of t) and the row's value. cuda/total.cu adds the rows.
// Backward: one thread for four numbers at a time; g is on the device.
//
// Shared memory: 10240 bytes (KL). Bytes: 8 (KL) or 4 a logit forward; some 80 operations in f64 for KL, 40 for cross
// entropy: as long as the memory takes on an H100, so about half of its bandwidth expected. Backward 16 (KL) or 12 bytes a
// number: 80 %. CPU twin: divergence/cpu.rs.
#define SLICES 8

// Σ e^{x − most} over some x, and Σ e^{t − most} (t − x) beside the targets' sum.
struct Sum {
    double most, sum;
    // Begins with a number instead of −∞, whose difference from itself is none.
    __device__ __forceinline__ void begin() { most = -3.0e38, sum = 0.0; }
    // Takes another sum in; returns the factors of both, for sums that go along.
    __device__ __forceinline__ void join(const Sum &other, double *ours, double *theirs) {
        double largest = other.most > most ? other.most : most;
        *ours = exp(most - largest), *theirs = exp(other.most - largest);
        most = largest, sum = sum * *ours + other.sum * *theirs;
    }
    __device__ __forceinline__ double logarithm() const { return most + log(sum); }
};

struct Pair {
    Sum x, t;
    double weighted;
    __device__ __forceinline__ void begin() { x.begin(), t.begin(), weighted = 0.0; }
    __device__ __forceinline__ void join(const Pair &other) {
        double ours, theirs;
        x.join(other.x, &ours, &theirs);
        t.join(other.t, &ours, &theirs);
        weighted = weighted * ours + other.weighted * theirs;
    }
};

struct Single {
    Sum x;
    __device__ __forceinline__ void begin() { x.begin(); }
    __device__ __forceinline__ void join(const Single &other) {
        double ours, theirs;
        x.join(other.x, &ours, &theirs);
    }
};

// Adds one logit; returns its e^{x − most}, and in `kept` the factor of what was summed before.
__device__ __forceinline__ double add(Sum &sum, double x, double *kept) {
    *kept = 1.0;
    if (x > sum.most) {
        *kept = exp(sum.most - x);
        sum.most = x, sum.sum *= *kept;
    }
    double share = exp(x - sum.most); // a NaN makes the sum one
    sum.sum += share;
    return share;
}

__device__ __forceinline__ void add(Pair &pair, const float *x, const float *t, u32 at) {
    double own = x[at], target = t[at], kept;
    add(pair.x, own, &kept);
    double share = add(pair.t, target, &kept);
    pair.weighted = fma(share, target - own, pair.weighted * kept);
}

__device__ __forceinline__ void add(Single &single, const float *x, const float *, u32 at) {
    double kept;
    add(single.x, x[at], &kept);
}

// parts [splits, R] of T.
template <class T>
__device__ __forceinline__ void parts_of(const float *x, const float *t, T *parts, u32 count, u32 rows, u32 span) {
    SHARED(T, slices, SLICES * 32);
    u32 tiles = (rows + 31) / 32, r = blockIdx.x % tiles * 32 + threadIdx.x % 32, slice = threadIdx.x / 32;
    u32 split = blockIdx.x / tiles, end = min(count, (split + 1) * span);
    T own;
    own.begin();
    if (r < rows)
        for (u32 v = split * span + slice; v < end; v += SLICES) add(own, x, t, v * rows + r);
    slices[threadIdx.x] = own;
    __syncthreads();
    if (slice > 0 || r >= rows) return;
    for (u32 s = 1; s < SLICES; s++) own.join(slices[s * 32 + threadIdx.x]);
    parts[split * rows + r] = own;
}

extern "C" __global__ void __launch_bounds__(256)
kl_parts(const float *__restrict__ x, const float *__restrict__ t, Pair *__restrict__ parts, u32 count, u32 rows, u32 span) {
    parts_of(x, t, parts, count, rows, span);
}

extern "C" __global__ void __launch_bounds__(256)
cross_entropy_parts(const float *__restrict__ x, Single *__restrict__ parts, u32 count, u32 rows, u32 span) {
    parts_of(x, static_cast<const float *>(0), parts, count, rows, span);
}

extern "C" __global__ void __launch_bounds__(256)
kl_rows(const Pair *__restrict__ parts, u32 splits, float *__restrict__ normalisers, double *__restrict__ values, u32 rows) {
    u32 r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    Pair whole = parts[r];
    for (u32 s = 1; s < splits; s++) whole.join(parts[s * rows + r]);
    double z = whole.x.logarithm(), z_target = whole.t.logarithm();
    normalisers[r] = float(z), normalisers[rows + r] = float(z_target);
    values[r] = whole.weighted / whole.t.sum + z - z_target;
}

// A label that is none of the logits makes the loss NaN.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_rows(const Single *__restrict__ parts, u32 splits, const float *__restrict__ x, const float *__restrict__ labels,
                   float *__restrict__ normalisers, double *__restrict__ values, u32 count, u32 rows) {
    u32 r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    Single whole = parts[r];
    for (u32 s = 1; s < splits; s++) whole.join(parts[s * rows + r]);
    double z = whole.x.logarithm(), value = 0.0;
    normalisers[r] = float(z);
    float label = labels[r];
    if (!(label < 0.0f)) {
        bool known = label < float(count) && label == floorf(label);
        value = z - (known ? double(x[u32(label) * rows + r]) : double(__uint_as_float(0x7fc00000u)));
    }
    values[r] = value;
}

extern "C" __global__ void __launch_bounds__(256)
kl_backward(const float *__restrict__ x, const float *__restrict__ t, const float *__restrict__ normalisers,
            const float *__restrict__ grad_out, float *__restrict__ grad_x, u32 rows, u32 n) {
    float g = *grad_out;
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n), b = load4(t, i, n), grad;
        u32 r = i % rows;
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            grad.v[k] = g * (expf(a.v[k] - normalisers[r]) - expf(b.v[k] - normalisers[rows + r]));
            if (++r == rows) r = 0;
        }
        store4(grad_x, i, n, grad, ADD);
    }
}

extern "C" __global__ void __launch_bounds__(256)
cross_entropy_backward(const float *__restrict__ x, const float *__restrict__ labels, const float *__restrict__ normalisers,
                       const float *__restrict__ grad_out, float *__restrict__ grad_x, u32 rows, u32 n) {
    float g = *grad_out;
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n);
        u32 v = i / rows, r = i % rows;
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            float label = labels[r];
            float slope = expf(a.v[k] - normalisers[r]) - (label == float(v) ? 1.0f : 0.0f);
            a.v[k] = label < 0.0f ? 0.0f : g * slope;
            if (++r == rows) r = 0, v++;
        }
        store4(grad_x, i, n, a, ADD);
    }
}
