// One decomposed matrix with its components masked; formulas in masked_site/mod.rs, CPU twin in cpu.rs.
//
// a, g [C, R]; u [C, d_out]; frozen, y [d_out, R]; delta, route [R]; bias [d_out]. The masked activations a ⊙ (m − d) are
// computed where a product reads them, Philox draws included, and never written: by four components of a row at a
// time, which share a Philox block.
//
// needs: tile.cuh
enum MaskKind { ONES, PER_COMPONENT, FULL, GIVEN, SHARED_SOURCE, DRAWN };

struct Site {
    const float *a;
    const float *mask;   // PER_COMPONENT: [C]; FULL: [C, R]; from GIVEN on: the importances g
    const float *source; // GIVEN: [C, R]; SHARED_SOURCE: [C]
    const u32 *numbers;  // DRAWN: of the rows in the whole batch
    const float *u, *frozen, *delta, *route, *bias;
    Stream stream;
    int kind;
    u32 components, d_out, rows;
};

// The masked activations of components c .. c + 3, c a multiple of four, in row r; zeros past the end.
__device__ __forceinline__ Four masked4(const Site &s, u32 c, u32 r) {
    Four four = {};
    if (r >= s.rows || c >= s.components) return four;
    float delta = s.delta ? s.delta[r] : 0.0f;
    Four draws = {};
    if (s.kind == DRAWN) draws = uniform4(s.stream, c / 4, s.numbers[r]);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (c + i >= s.components) break;
        u32 at = (c + i) * s.rows + r;
        float factor = 1.0f;
        if (s.kind == PER_COMPONENT) factor = s.mask[c + i];
        if (s.kind == FULL) factor = s.mask[at];
        if (s.kind >= GIVEN) {
            float source = s.kind == DRAWN ? draws.v[i] : s.source[s.kind == GIVEN ? at : c + i], g = s.mask[at];
            factor = fmaf(1.0f - g, source, g);
        }
        four.v[i] = s.a[at] * (factor - delta);
    }
    return four;
}

// How much of a row's output is the frozen product.
__device__ __forceinline__ float frozen_share(const Site &s, u32 r) {
    if (s.route && s.route[r] == 0.0f) return 1.0f;
    return s.delta ? s.delta[r] : 0.0f;
}

// Masked activations as a panel, number (k = c, x = r).
struct MaskedAcross {
    const Site &s;
    u32 start;
    __device__ __forceinline__ Four load(u32 k) const {
        return masked4(s, k + threadIdx.x / 64 * 4, start + threadIdx.x % 64);
    }
    __device__ __forceinline__ void put(float *panel, Four four) const {
#pragma unroll
        for (u32 i = 0; i < 4; i++) panel[(threadIdx.x / 64 * 4 + i) * PITCH + threadIdx.x % 64] = four.v[i];
    }
};

// Masked activations as a panel, number (k = r, x = c).
struct MaskedDown {
    const Site &s;
    u32 start;
    __device__ __forceinline__ Four load(u32 k) const {
        return masked4(s, start + threadIdx.x / 16 * 4, k + threadIdx.x % 16);
    }
    __device__ __forceinline__ void put(float *panel, Four four) const {
        write4(panel + threadIdx.x % 16 * PITCH + threadIdx.x / 16 * 4, four.v);
    }
};

// The upstream gradient as a panel, number (k = r, x = o), zero in rows that are routed to the target.
struct Upstream {
    Deep grad;
    const float *route;
    __device__ __forceinline__ Four load(u32 k) const {
        Four four = grad.load(k);
        u32 r = k + threadIdx.x % 4 * 4;
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (route && r + i < grad.depth) four.v[i] *= route[r + i];
        return four;
    }
    __device__ __forceinline__ void put(float *panel, Four four) const { grad.put(panel, four); }
};

// masked_site_forward: y = route ⊙ Uᵀ(a ⊙ (m − d)) + share ⊙ frozen + bias.
//
// Grid: (R / 64, d_out / 64) blocks of 256; shared memory 8704 bytes. Multiply-adds: C d_out R; bytes: 8 to 12 C R for each
// 64 outputs, 8 d_out R. With d_out up to 64, as in toy models, limited by reading activations and importances: about
// 70 % of the bandwidth expected without draws; Philox (6 operations a number) hides behind it.
extern "C" __global__ void __launch_bounds__(256) masked_site_forward(Site s, float *__restrict__ y) {
    u32 o = blockIdx.y * TILE, r = blockIdx.x * TILE;
    float sum[4][4] = {};
    multiply(Along(s.u, s.d_out, o, s.d_out, s.components), MaskedAcross{s, r}, 0, s.components, sum);
    o += tile_row(), r += tile_column();
    bool whole = in_fours(y, s.rows);
    float share[4], route[4];
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        bool exists = r + j < s.rows;
        share[j] = exists ? frozen_share(s, r + j) : 0.0f;
        route[j] = exists && s.route ? s.route[r + j] : 1.0f;
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (o + i >= s.d_out) break;
        u32 at = (o + i) * s.rows + r;
        float bias = s.bias ? s.bias[o + i] : 0.0f;
        Four frozen = {};
        if (s.frozen) frozen = four_of(s.frozen, at, left_of(s.rows, r), whole);
#pragma unroll
        for (int j = 0; j < 4; j++) sum[i][j] = fmaf(share[j], frozen.v[j], sum[i][j] * route[j]) + bias;
        store_four(y, at, left_of(s.rows, r), sum[i], WRITE, whole);
    }
}

// masked_activations: out[c, r] = route[r] a[c, r] (m − d). One thread for four components of a row; blocks of 64 rows by
// 16 components. 12 bytes a number: limited by memory, about 70 % expected.
extern "C" __global__ void __launch_bounds__(256) masked_activations(Site s, float *__restrict__ out) {
    u32 r = blockIdx.x * 64 + threadIdx.x % 64, c = blockIdx.y * 16 + threadIdx.x / 64 * 4;
    if (r >= s.rows) return;
    Four four = masked4(s, c, r);
    float route = s.route ? s.route[r] : 1.0f;
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        if (c + i < s.components) out[(c + i) * s.rows + r] = four.v[i] * route;
}

// Where a site's gradients go; none where nobody wants them.
struct Gradients {
    float *a, *mask, *importance, *source;
    float *delta_parts;     // [C / 64, R]: Σ_c a ⊙ worth of a tile
    float *component_parts; // [R / 64, C]: of a mask or a source that rows share
    int add_a, add_mask, add_importance, add_source;
};

// Stores the gradients that follow from `worth`, what one unit of each masked activation of the tile is worth.
__device__ __forceinline__ void spread(const Site &s, const Gradients &g, u32 tile_c, u32 tile_r, float (&worth)[4][4]) {
    SHARED(float, sums, 16 * TILE);
    u32 c = tile_c + tile_row(), r = tile_r + tile_column(), count = left_of(s.rows, r);
    bool whole = s.rows % 4 == 0; // the arrays are allocations of their own
    float source[4][4] = {}, delta[4], of_row[4] = {}, of_component[4] = {};
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        delta[j] = s.delta && j < count ? s.delta[r + j] : 0.0f;
        if (s.kind == DRAWN && j < count && c < s.components) {
            Four draws = uniform4(s.stream, c / 4, s.numbers[r + j]);
#pragma unroll
            for (int i = 0; i < 4; i++) source[i][j] = draws.v[i];
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (c + i >= s.components) break;
        u32 at = (c + i) * s.rows + r;
        Four a = four_of(s.a, at, count, whole), lower = {};
        if (s.kind >= FULL) lower = four_of(s.mask, at, count, whole);
        if (s.kind == GIVEN) {
            Four given = four_of(s.source, at, count, whole);
#pragma unroll
            for (int j = 0; j < 4; j++) source[i][j] = given.v[j];
        }
        float shared = s.kind == PER_COMPONENT ? s.mask[c + i] : s.kind == SHARED_SOURCE ? s.source[c + i] : 1.0f;
        float of_a[4], of_importance[4], of_mask[4], of_source[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            if (s.kind == SHARED_SOURCE) source[i][j] = shared;
            float factor = s.kind == FULL ? lower.v[j] : shared;
            if (s.kind >= GIVEN) factor = fmaf(1.0f - lower.v[j], source[i][j], lower.v[j]);
            float unit = a.v[j] * worth[i][j];
            of_a[j] = (factor - delta[j]) * worth[i][j];
            of_importance[j] = (1.0f - source[i][j]) * a.v[j] * worth[i][j];
            of_mask[j] = unit;
            of_source[j] = (1.0f - lower.v[j]) * a.v[j] * worth[i][j];
            of_row[j] += unit;
            if (j < count) of_component[i] += s.kind >= GIVEN ? of_source[j] : unit;
        }
        if (g.a) store_four(g.a, at, count, of_a, g.add_a, whole);
        if (g.importance) store_four(g.importance, at, count, of_importance, g.add_importance, whole);
        if (g.mask) store_four(g.mask, at, count, of_mask, g.add_mask, whole);
        if (g.source) store_four(g.source, at, count, of_source, g.add_source, whole);
    }
    // The sums over the tile's components and rows, sixteen threads' fours one after the other.
    if (g.delta_parts) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) sums[threadIdx.x / 16 * TILE + tile_column() + j] = of_row[j];
        __syncthreads();
        if (threadIdx.x < TILE && tile_r + threadIdx.x < s.rows) {
            float sum = 0.0f;
            for (u32 i = 0; i < 16; i++) sum += sums[i * TILE + threadIdx.x];
            g.delta_parts[blockIdx.y * s.rows + tile_r + threadIdx.x] = sum;
        }
        __syncthreads();
    }
    if (g.component_parts) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[threadIdx.x % 16 * TILE + tile_row() + i] = of_component[i];
        __syncthreads();
        if (threadIdx.x < TILE && tile_c + threadIdx.x < s.components) {
            float sum = 0.0f;
            for (u32 i = 0; i < 16; i++) sum += sums[i * TILE + threadIdx.x];
            g.component_parts[blockIdx.x * s.components + tile_c + threadIdx.x] = sum;
        }
    }
}

// masked_site_backward: worth = U (route ⊙ ∂y), and from it the gradients of a, m, g and sources.
//
// Grid: (R / 64, C / 64) blocks of 256; shared memory 12800 bytes. Multiply-adds: C d_out R; bytes: 4 d_out R for each 64
// components, then up to 28 C R: limited by memory for d_out up to 64, about 70 % of the bandwidth expected.
extern "C" __global__ void __launch_bounds__(256)
masked_site_backward(Site s, const float *__restrict__ grad_y, Gradients g) {
    u32 c = blockIdx.y * TILE, r = blockIdx.x * TILE;
    float worth[4][4] = {};
    multiply(Deep(s.u, s.d_out, c, s.components, s.d_out), Along(grad_y, s.rows, r, s.rows, s.d_out), 0, s.d_out, worth);
    if (s.route) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            u32 at = r + tile_column() + j;
            float route = at < s.rows ? s.route[at] : 0.0f;
#pragma unroll
            for (int i = 0; i < 4; i++) worth[i][j] *= route;
        }
    }
    spread(s, g, c, r, worth);
}

// masked_activations_backward: the same from worth = route ⊙ ∂(masked activations), [C, R]. Grid as above; shared memory
// 4096 bytes; up to 32 bytes a number, limited by memory (70 %).
extern "C" __global__ void __launch_bounds__(256)
masked_activations_backward(Site s, const float *__restrict__ grad_masked, Gradients g) {
    u32 c = blockIdx.y * TILE, r = blockIdx.x * TILE, row = r + tile_column();
    float worth[4][4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 component = c + tile_row() + i;
        u32 count = component < s.components ? left_of(s.rows, row) : 0;
        Four four = four_of(grad_masked, component * s.rows + row, count, in_fours(grad_masked, s.rows));
#pragma unroll
        for (u32 j = 0; j < 4; j++) worth[i][j] = s.route && j < count ? four.v[j] * s.route[row + j] : four.v[j];
    }
    spread(s, g, c, r, worth);
}

// masked_site_u: parts of ∂U[c, o] = Σ_r a (m − d) route ∂y[o, r], [splits, C, d_out]; sum_parts of linear.cu adds them.
// Grid: (d_out / 64, C / 64, splits) blocks of 256; shared memory 8704 bytes. Reads as the forward pass does.
extern "C" __global__ void __launch_bounds__(256)
masked_site_u(Site s, const float *__restrict__ grad_y, float *__restrict__ parts, u32 span) {
    u32 c = blockIdx.y * TILE, o = blockIdx.x * TILE, from = blockIdx.z * span;
    float sum[4][4] = {};
    Upstream upstream{Deep(grad_y, s.rows, o, s.d_out, s.rows), s.route};
    multiply(MaskedDown{s, c}, upstream, from, min(s.rows, from + span), sum);
    float *out = parts + u64(blockIdx.z) * s.components * s.d_out;
    bool whole = in_fours(out, s.d_out);
    c += tile_row(), o += tile_column();
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        if (c + i < s.components) store_four(out, (c + i) * s.d_out + o, left_of(s.d_out, o), sum[i], WRITE, whole);
}

// masked_site_frozen: ∂frozen[o, r] (+)= share[r] ∂y[o, r]. One thread for four numbers; 8 or 12 bytes each (90 %).
extern "C" __global__ void __launch_bounds__(256)
masked_site_frozen(Site s, const float *__restrict__ grad_y, float *__restrict__ grad_frozen, u32 n, int add) {
    FOR_EACH_FOUR(i, n) {
        Four p = load4(grad_y, i, n);
#pragma unroll
        for (u32 k = 0; k < 4; k++) p.v[k] *= frozen_share(s, (i + k) % s.rows);
        store4(grad_frozen, i, n, p, add);
    }
}

// masked_site_delta: ∂d[r] += Σ_o route ∂y frozen − Σ_c a worth, the second sum from the parts of the tiles in their order.
// One thread a row; without an output to flow back from, grad_y is none.
extern "C" __global__ void __launch_bounds__(256)
masked_site_delta(Site s, const float *__restrict__ grad_y, const float *__restrict__ parts, u32 count,
                  float *__restrict__ grad_delta) {
    u32 r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= s.rows) return;
    float sum = 0.0f, route = s.route ? s.route[r] : 1.0f;
    if (grad_y && s.frozen)
        for (u32 o = 0; o < s.d_out; o++) sum = fmaf(grad_y[o * s.rows + r] * route, s.frozen[o * s.rows + r], sum);
    for (u32 i = 0; i < count; i++) sum -= parts[i * s.rows + r];
    grad_delta[r] += sum;
}
