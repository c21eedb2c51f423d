// Causal attention (attention/mod.rs). A task is one head on one sequence; features of q, k, v, y, g are `rows` apart.
// s[i, j] = Σ_f q[f, i] k[f, j] / √d for j ≤ i;   p[i, ·] = softmax(s[i, 0..=i]);   ∂p[i, j] = Σ_f g[f, i] v[f, j]
// mean[i] = Σ_j p[i, j] ∂p[i, j];   ∂s[i, j] = p[i, j] (∂p[i, j] − mean[i]) / √d
// attention_forward:     y[f, i] += Σ_j p[i, j] v[f, j]
// attention_statistics:  statistics[task, i] = (max_j s, 1 / Σ_j e^{s − max}, mean) of query i; without g and v no mean
// attention_queries:     ∂q[f, i] += Σ_j ∂s[i, j] k[f, j]
// attention_keys:        ∂k[f, j] += Σ_i ∂s[i, j] q[f, i],   ∂v[f, j] += Σ_i p[i, j] g[f, i], each where wanted
// attention_weights:     out[task, i, j] = p[i, j], zero for j > i
//
// Blocks of 256 threads own 64 queries or keys of a task and 64 of its features, and go through the 64 keys or queries at
// a time that the mask lets through, in order; nobody else writes their results. Scores of 64 x 64 are products by tiles
// (tile.cuh), d numbers deep, thread (i, j) holding 4 x 4 of them; sixteen threads with the same queries join their
// largest scores and sums by shuffles. The softmax runs online: where a later score is larger, the sums so far shrink.
// The 64 x 64 probabilities go through shared memory into the product with the features. With more than 64 features a
// head, scores are computed again for each 64.
//
// Grid: tasks · ⌈length/64⌉ (the longest first) by ⌈d/64⌉. Shared memory: at most 35 KiB. Multiply-adds of a pair (i, j):
// 2d forward, 2d + d + 2d + d + 2d + 2d backward (statistics, queries, keys) where d ≤ 64; bytes: 4 d a number and tile of
// the other side, from the cache. About 30 % of an H100's arithmetic in f32 expected at length ≥ 512 and d = 64; with
// short sequences most of a tile is empty and it is the launches that count. CPU twin: attention/cpu.rs.
//
// needs: tile.cuh
struct Attention {
    const float *q, *k, *v, *g;
    const float *statistics; // [3, tasks, length]
    u32 heads, d, rows, length, tasks, tiles;
    float scale;
};

// Which task and which 64 queries or keys a block has; those with the most to look at come first.
struct Place {
    u32 task, first, at; // `at`: where the task's numbers begin
    __device__ Place(const Attention &a, bool keys) {
        u32 tile = blockIdx.x / a.tasks;
        task = blockIdx.x % a.tasks;
        first = (keys ? tile : a.tiles - 1 - tile) * TILE;
        at = task % a.heads * a.d * a.rows + task / a.heads * a.length;
    }
};

// A panel in shared memory, [64][PITCH] by k: what `multiply` reads as its second operand.
struct Held {
    const float *panel;
    __device__ __forceinline__ Four load(u32 k) const {
        return read4(panel + (k + threadIdx.x / 16) * PITCH + threadIdx.x % 16 * 4);
    }
    __device__ __forceinline__ void put(float *to, Four four) const {
        write4(to + threadIdx.x / 16 * PITCH + threadIdx.x % 16 * 4, four.v);
    }
};

// product[i][j] = Σ_f x[f, queries + i] y[f, keys + j].
__device__ __forceinline__ void products(const Attention &a, const float *x, const float *y, u32 queries, u32 keys,
                                         float (&product)[4][4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) product[i][j] = 0.0f;
    multiply(Along(x, a.rows, queries, a.length, a.d), Along(y, a.rows, keys, a.length, a.d), 0, a.d, product);
}

// sum[f][x] += Σ_k from[f, first + k] panel[k][x], over the 64 k in the panel, or those that exist. The panel is read
// before the last barrier in `multiply`, so that it may be written again afterwards.
__device__ __forceinline__ void mix(const Attention &a, const float *from, u32 first, const float *panel, float (&sum)[4][4]) {
    u32 feature = blockIdx.y * TILE;
    Held held = {panel};
    multiply(Deep(from + first, a.rows, feature, a.d, a.length - first), held, 0, min(u32(TILE), a.length - first), sum);
}

__device__ __forceinline__ bool is_seen(const Attention &a, u32 query, u32 key) { return key <= query && query < a.length; }

// Adds the thread's 4 x 4 (features, positions) to `out`, which begins with the task's numbers.
__device__ __forceinline__ void add_to(const Attention &a, float *out, u32 first, const float (&sum)[4][4]) {
    u32 feature = blockIdx.y * TILE + tile_row(), position = first + tile_column();
    bool whole = in_fours(out, a.rows);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (feature + i >= a.d) break;
        store_four(out, (feature + i) * a.rows + position, left_of(a.length, position), sum[i], ADD, whole);
    }
}

// The softmax of the thread's four queries so far.
struct Online {
    float most[4], sum[4];
    __device__ Online() {
#pragma unroll
        for (int i = 0; i < 4; i++) most[i] = __uint_as_float(0xff800000u), sum[i] = 0.0f;
    }
    // Replaces products by e^{s − most}, zero where the mask hides the key; returns what earlier sums shrink by.
    __device__ __forceinline__ void take(const Attention &a, u32 queries, u32 keys, float (&s)[4][4], float (&shrink)[4]) {
        u32 query = queries + tile_row(), key = keys + tile_column();
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float largest = most[i];
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                s[i][j] *= a.scale;
                if (is_seen(a, query + i, key + j)) largest = fmaxf(largest, s[i][j]);
            }
            for (int offset = 8; offset > 0; offset /= 2)
                largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
            // The first tile has a key for every query; none before it, and nothing to shrink.
            shrink[i] = keys == 0 ? 0.0f : expf(most[i] - largest);
            most[i] = largest;
            float added = 0.0f;
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                s[i][j] = is_seen(a, query + i, key + j) ? expf(s[i][j] - largest) : 0.0f;
                added += s[i][j];
            }
            sum[i] = sum[i] * shrink[i] + of_sixteen(added);
        }
    }
    // The sum over the sixteen threads that have the same queries.
    static __device__ __forceinline__ float of_sixteen(float value) {
        for (int offset = 8; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
        return value;
    }
};

extern "C" __global__ void __launch_bounds__(256) attention_forward(Attention a, float *out) {
    SHARED(float, panel, TILE *PITCH); // probabilities, [key][query]
    SHARED(float, factors, TILE);      // for each query
    Place place(a, false);
    Online online;
    float s[4][4], shrink[4], sum[4][4] = {};
    for (u32 keys = 0; keys <= place.first; keys += TILE) {
        products(a, a.q + place.at, a.k + place.at, place.first, keys, s);
        online.take(a, place.first, keys, s, shrink);
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            write4(panel + (tile_column() + j) * PITCH + tile_row(), {s[0][j], s[1][j], s[2][j], s[3][j]});
        if (tile_column() == 0) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) factors[tile_row() + i] = shrink[i];
        }
        __syncthreads();
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            float factor = factors[tile_column() + j];
#pragma unroll
            for (u32 i = 0; i < 4; i++) sum[i][j] *= factor;
        }
        mix(a, a.v + place.at, keys, panel, sum);
    }
    if (tile_column() == 0) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) factors[tile_row() + i] = 1.0f / online.sum[i];
    }
    __syncthreads();
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        float factor = factors[tile_column() + j];
#pragma unroll
        for (u32 i = 0; i < 4; i++) sum[i][j] *= factor;
    }
    add_to(a, out + place.at, place.first, sum);
}

extern "C" __global__ void __launch_bounds__(256) attention_statistics(Attention a, float *statistics) {
    Place place(a, false);
    Online online;
    float s[4][4], grad[4][4], shrink[4], mean[4] = {};
    for (u32 keys = 0; keys <= place.first; keys += TILE) {
        products(a, a.q + place.at, a.k + place.at, place.first, keys, s);
        online.take(a, place.first, keys, s, shrink);
        if (!a.g) continue; // alike for all threads
        products(a, a.g + place.at, a.v + place.at, place.first, keys, grad);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float added = 0.0f;
#pragma unroll
            for (u32 j = 0; j < 4; j++) added = fmaf(s[i][j], grad[i][j], added);
            mean[i] = mean[i] * shrink[i] + Online::of_sixteen(added);
        }
    }
    if (tile_column() > 0) return;
    u32 pitch = a.tasks * a.length, at = place.task * a.length + place.first + tile_row();
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (place.first + tile_row() + i >= a.length) break;
        float share = 1.0f / online.sum[i];
        statistics[at + i] = online.most[i];
        statistics[pitch + at + i] = share;
        statistics[2 * pitch + at + i] = mean[i] * share;
    }
}

// What the statistics say of the thread's four queries.
struct Known {
    float most[4], share[4], mean[4];
    __device__ __forceinline__ Known(const Attention &a, u32 task, u32 queries, bool with_mean) {
        u32 pitch = a.tasks * a.length, query = queries + tile_row(), at = task * a.length + query;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            bool exists = query + i < a.length;
            most[i] = exists ? a.statistics[at + i] : 0.0f;
            share[i] = exists ? a.statistics[pitch + at + i] : 0.0f;
            mean[i] = exists && with_mean ? a.statistics[2 * pitch + at + i] : 0.0f;
        }
    }
    // Replaces products by probabilities.
    __device__ __forceinline__ void probabilities(const Attention &a, u32 queries, u32 keys, float (&s)[4][4]) const {
        u32 query = queries + tile_row(), key = keys + tile_column();
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 j = 0; j < 4; j++)
                s[i][j] = is_seen(a, query + i, key + j) ? expf(s[i][j] * a.scale - most[i]) * share[i] : 0.0f;
    }
    // Replaces probabilities by the gradient of the scores before scaling.
    __device__ __forceinline__ void slopes(const Attention &a, float (&p)[4][4], const float (&grad)[4][4]) const {
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 j = 0; j < 4; j++) p[i][j] *= a.scale * (grad[i][j] - mean[i]);
    }
};

// One block at a time is enough: for two, ptxas would keep to 128 registers and spill.
extern "C" __global__ void __launch_bounds__(256, 1) attention_queries(Attention a, float *grad_q) {
    SHARED(float, panel, TILE *PITCH); // slopes, [key][query]
    Place place(a, false);
    Known known(a, place.task, place.first, true);
    float s[4][4], grad[4][4], sum[4][4] = {};
    for (u32 keys = 0; keys <= place.first; keys += TILE) {
        products(a, a.q + place.at, a.k + place.at, place.first, keys, s);
        products(a, a.g + place.at, a.v + place.at, place.first, keys, grad);
        known.probabilities(a, place.first, keys, s);
        known.slopes(a, s, grad);
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            write4(panel + (tile_column() + j) * PITCH + tile_row(), {s[0][j], s[1][j], s[2][j], s[3][j]});
        __syncthreads();
        mix(a, a.k + place.at, keys, panel, sum);
    }
    add_to(a, grad_q + place.at, place.first, sum);
}

// Writes the thread's 4 x 4 to a panel, [query][key].
__device__ __forceinline__ void hold(float *panel, const float (&s)[4][4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        write4(panel + (tile_row() + i) * PITCH + tile_column(), s[i]);
}

extern "C" __global__ void __launch_bounds__(256) attention_keys(Attention a, float *grad_k, float *grad_v) {
    SHARED(float, panel, TILE *PITCH);
    Place place(a, true);
    float s[4][4], grad[4][4], sum_k[4][4] = {}, sum_v[4][4] = {};
    for (u32 queries = place.first; queries < a.length; queries += TILE) {
        Known known(a, place.task, queries, grad_k);
        products(a, a.q + place.at, a.k + place.at, queries, place.first, s);
        known.probabilities(a, queries, place.first, s);
        if (grad_v) {
            hold(panel, s);
            __syncthreads();
            mix(a, a.g + place.at, queries, panel, sum_v);
        }
        if (grad_k) {
            products(a, a.g + place.at, a.v + place.at, queries, place.first, grad);
            known.slopes(a, s, grad);
            hold(panel, s);
            __syncthreads();
            mix(a, a.q + place.at, queries, panel, sum_k);
        }
    }
    if (grad_k) add_to(a, grad_k + place.at, place.first, sum_k);
    if (grad_v) add_to(a, grad_v + place.at, place.first, sum_v);
}

extern "C" __global__ void __launch_bounds__(256) attention_weights(Attention a, float *out) {
    Place place(a, false);
    Known known(a, place.task, place.first, false);
    float s[4][4] = {};
    u32 keys = blockIdx.y * TILE, query = place.first + tile_row(), key = keys + tile_column();
    if (keys <= place.first) {
        products(a, a.q + place.at, a.k + place.at, place.first, keys, s);
        known.probabilities(a, place.first, keys, s);
    }
    out += u64(place.task) * a.length * a.length;
    bool whole = in_fours(out, a.length);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (query + i >= a.length) break;
        store_four(out, (query + i) * a.length + key, left_of(a.length, key), s[i], WRITE, whole);
    }
}
