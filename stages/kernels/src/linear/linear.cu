// product_AB: out[m, n] (+)= alpha scale Σ_k a(k, m) b(k, n) + bias[m], for `groups` products side by side.
//
// A, B: `along` where memory runs along m or n, `deep` where it runs along k (tile.cuh). `a`, `b`, `out`, `bias` of a
// group are a stride apart. A long sum that few tiles would share is cut into `splits` of `span` terms: each writes its
// part to `out`, [splits, groups, m, n], and sum_parts adds the parts in their order.
//
// Grid: (n / 64, m / 64, splits groups) blocks of 256. Shared memory: 8704 bytes. Multiply-adds: m n k; bytes:
// 4 (m k + k n + m n), panels are read again for every 64 of the other dimension. CPU twin: cpu.rs.
//
// needs: tile.cuh
struct Product {
    const float *a, *b, *bias, *scale;
    float *out;
    u32 m, n, k, a_pitch, b_pitch, out_pitch;
    u32 a_stride, b_stride, out_stride, bias_stride;
    u32 groups, span;
    float alpha;
    int add;
};

template <class A, class B> __device__ __forceinline__ void product(const Product &p) {
    u32 group = blockIdx.z % p.groups, from = blockIdx.z / p.groups * p.span;
    u32 row = blockIdx.y * TILE, column = blockIdx.x * TILE, to = min(p.k, from + p.span);
    float sum[4][4] = {};
    multiply(A(p.a + group * p.a_stride, p.a_pitch, row, p.m, p.k), B(p.b + group * p.b_stride, p.b_pitch, column, p.n, p.k),
             from, to, sum);
    float *out = p.out + u64(blockIdx.z) * p.out_stride;
    float factor = p.scale ? p.alpha * *p.scale : p.alpha;
    bool whole = in_fours(out, p.out_pitch);
    row += tile_row(), column += tile_column();
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (row + i >= p.m) break;
        float bias = p.bias ? p.bias[group * p.bias_stride + row + i] : 0.0f;
#pragma unroll
        for (u32 j = 0; j < 4; j++) sum[i][j] = fmaf(factor, sum[i][j], bias);
        store_four(out, (row + i) * p.out_pitch + column, left_of(p.n, column), sum[i], p.add, whole);
    }
}

extern "C" __global__ void __launch_bounds__(256) product_along_along(Product p) { product<Along, Along>(p); }
extern "C" __global__ void __launch_bounds__(256) product_along_deep(Product p) { product<Along, Deep>(p); }
extern "C" __global__ void __launch_bounds__(256) product_deep_along(Product p) { product<Deep, Along>(p); }
extern "C" __global__ void __launch_bounds__(256) product_deep_deep(Product p) { product<Deep, Deep>(p); }

// sum_parts: out[i] (+)= alpha scale Σ_s parts[s, i], s in order. One thread for four numbers; reads 4 bytes a term.
extern "C" __global__ void __launch_bounds__(256)
sum_parts(const float *__restrict__ parts, u32 splits, const float *scale, float alpha, float *__restrict__ out, u32 n, int add) {
    float factor = scale ? alpha * *scale : alpha;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float sum = 0.0f;
        for (u32 s = 0; s < splits; s++) sum += parts[u64(s) * n + i];
        store(out, i, factor * sum, add);
    }
}
