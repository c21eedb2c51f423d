// What every kernel file begins with: types, 16-byte accesses, sums in a fixed order, random draws.
//
// A file is compiled as this text followed by its own (cuda/module.rs), by NVRTC at start-up. All arrays are f32 and
// have fewer than 2^31 elements; launchers check that. Nothing here is added up with atomics: results have the same bits
// in every run.
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef SHARED
#define SHARED(type, name, size) __shared__ __align__(16) type name[size]
#endif

// What becomes of the numbers in a result's memory (store.rs).
#define WRITE 0
#define ADD 1

__device__ __forceinline__ void store(float *out, u32 i, float value, int add) {
    out[i] = add ? out[i] + value : value;
}

// Four consecutive numbers.
struct Four {
    float v[4];
};

// Reads and writes 16 bytes at once, at a multiple of 16.
__device__ __forceinline__ Four read4(const float *from) {
    float4 x = *reinterpret_cast<const float4 *>(from);
    return {{x.x, x.y, x.z, x.w}};
}

__device__ __forceinline__ void write4(float *to, const float (&four)[4]) {
    *reinterpret_cast<float4 *>(to) = make_float4(four[0], four[1], four[2], four[3]);
}

__device__ __forceinline__ u32 left_of(u32 end, u32 at) { return at < end ? end - at : 0; }

// Whether rows of `pitch` numbers from `from` on can be read in fours.
__device__ __forceinline__ bool in_fours(const float *from, u32 pitch) {
    return reinterpret_cast<u64>(from) % 16 == 0 && pitch % 4 == 0;
}

// Four numbers from `at` on, of which `count` exist; the others are zero and never touched.
__device__ __forceinline__ Four four_of(const float *__restrict__ from, u32 at, u32 count, bool whole) {
    if (whole && count >= 4) return read4(from + at);
    Four four;
#pragma unroll
    for (u32 i = 0; i < 4; i++) four.v[i] = i < count ? from[at + i] : 0.0f;
    return four;
}

// Stores four numbers from `at` on, of which `count` exist.
__device__ __forceinline__ void store_four(float *to, u32 at, u32 count, const float (&four)[4], int add, bool whole) {
    if (whole && count >= 4) {
        if (!add) return write4(to + at, four);
        Four sum = read4(to + at);
#pragma unroll
        for (int j = 0; j < 4; j++) sum.v[j] = four[j] + sum.v[j];
        write4(to + at, sum.v);
    } else {
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            if (j < count) store(to, at + j, four[j], add);
    }
}

// The same for an array of n numbers, which is an allocation of its own, from a multiple of four on.
__device__ __forceinline__ Four load4(const float *__restrict__ from, u32 i, u32 n) {
    return four_of(from, i, left_of(n, i), true);
}

__device__ __forceinline__ void store4(float *to, u32 i, u32 n, const Four &four, int add) {
    store_four(to, i, left_of(n, i), four.v, add, true);
}

// A thread's groups of four among n numbers: `FOR_EACH_FOUR(i, n) { … load4(x, i, n) … }`.
#define FOR_EACH_FOUR(i, n) \
    for (u32 i = 4 * (blockIdx.x * blockDim.x + threadIdx.x), step_##i = 4 * gridDim.x * blockDim.x; \
         i < (n); i += step_##i)

// Adds `value` up over the lanes of a warp, which all call this, by halves; lane 0 gets the sum.
template <class T> __device__ __forceinline__ T warp_sum(T value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
    return value;
}

// Adds `value` up over the threads of a block, which all call this; thread 0 gets the sum. Warps first, then
// the warps in their order: the same tree in every run. A block has at most 1024 threads, a multiple of 32.
template <class T> __device__ __forceinline__ T block_sum(T value) {
    SHARED(T, of_warps, 32);
    value = warp_sum(value);
    __syncthreads(); // the memory may still be read by an earlier call
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
        value = of_warps[0];
        for (u32 warp = 1; warp < blockDim.x / 32; warp++) value += of_warps[warp];
    }
    return value;
}

// Philox4x32-10, as philox/mod.rs: the four words of one counter block.
__device__ __forceinline__ uint4 philox(uint4 c, u32 k0, u32 k1) {
    for (int round = 0; round < 10; round++) {
        u32 high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
        u32 high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
        c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// The uniform number in [0, 1) with the 24 highest bits of `word`; exact, so that every device draws the same.
__device__ __forceinline__ float unit(u32 word) {
    return float(int(word >> 8)) * (1.0f / 16777216.0f);
}

// A stream of draws: key and step (philox/mod.rs, `Stream`).
struct Stream {
    u32 key0, key1, step;
};

// The draws of features 4 group … 4 group + 3 in row number `row` of the whole batch.
__device__ __forceinline__ Four uniform4(Stream stream, u32 group, u32 row) {
    uint4 words = philox(make_uint4(row, group, stream.step, 0), stream.key0, stream.key1);
    Four four;
    four.v[0] = unit(words.x), four.v[1] = unit(words.y), four.v[2] = unit(words.z), four.v[3] = unit(words.w);
    return four;
}

// The standard normal distribution function at x, and e^(-x²/2); formula and coefficients of gelu/mod.rs.
__device__ __forceinline__ float normal(float x, float *density) {
    float a = fminf(fabsf(x), 13.1f), square = a * a;
    float rounded = fmaf(square, -0.7213475f, 12582912.0f), n = rounded - 12582912.0f;
    float f = fmaf(square, -0.7213475f, -n), f2 = f * f;
    float p01 = fmaf(0.69314697f, f, 1.0f), p23 = fmaf(0.055507336f, f, 0.24022242f);
    float p45 = fmaf(0.001326472f, f, 0.009671513f);
    float p = fmaf(fmaf(p45, f2, p23), f2, p01);
    float e = __uint_as_float(__float_as_uint(p) + (__float_as_uint(rounded) << 23));
    float t = 1.0f / fmaf(0.3f, a, 1.0f), u = -(a * 0.3f) * t, u2 = u * u, u4 = u2 * u2;
    float q01 = fmaf(0.82980734f, u, 0.5f), q23 = fmaf(0.08225428f, u, 0.61820847f);
    float q45 = fmaf(0.01419018f, u, -0.13025342f), q67 = fmaf(0.036250647f, u, 0.09417039f);
    float q = (e * t) * fmaf(fmaf(q67, u2, q45), u4, fmaf(q23, u2, q01));
    *density = e;
    return x > 0.0f ? 1.0f - q : q;
}

#define INV_SQRT_2PI 0.3989423f
