// embedding_forward: y[f, r] = table[token(r), f]; a token that is not in the table gives NaN.
// embedding_backward: ∂table[t, f] += Σ_r [token(r) = t] ∂y[f, r].
//
// table [vocab, d], tokens [R] as f32, y [d, R]. Forward: a block of 256 threads copies 32 rows of 32 features through
// shared memory (4224 bytes), so that both sides are read and written in lines of 128 bytes: 8 bytes a number, limited by
// memory, about 70 % of its bandwidth expected. CPU twin: embedding/mod.rs.
extern "C" __global__ void __launch_bounds__(256)
embedding_forward(const float *__restrict__ table, const float *__restrict__ tokens, float *__restrict__ y, u32 vocab, u32 d,
                  u32 rows) {
    SHARED(float, tile, 32 * 33);
    u32 x = threadIdx.x % 32, slice = threadIdx.x / 32, row_tiles = (rows + 31) / 32;
    u32 first_row = blockIdx.x % row_tiles * 32, first_feature = blockIdx.x / row_tiles * 32;
    for (u32 k = slice; k < 32; k += 8) {
        u32 r = first_row + k, f = first_feature + x;
        if (r >= rows || f >= d) continue;
        float token = tokens[r];
        // Written so that a NaN fails.
        bool known = token >= 0.0f && token < float(vocab) && token == floorf(token);
        tile[k * 33 + x] = known ? table[u32(token) * d + f] : __uint_as_float(0x7fc00000u);
    }
    __syncthreads();
    for (u32 k = slice; k < 32; k += 8) {
        u32 r = first_row + x, f = first_feature + k;
        if (r < rows && f < d) y[f * rows + r] = tile[x * 33 + k];
    }
}

// A block of 256 threads owns a token t and a chunk of rows, which it takes in spans of 2048: it lists the span's rows that
// hold t, in order, each thread looking at eight of them; then 32 features at a time, thread (f, s) adds up the matches
// s, s + 8, … of the list, and the eight sums are added in order of s. A single chunk adds to the table's gradient;
// several write `out` [chunks, vocab, d] for embedding_sum to add up in order.
//
// Reads 4 bytes for each token and row (from the cache) and 32 for each match and feature, of which it uses 4; the first
// limits it with a large vocabulary (vocab R / 2048 blocks of about a microsecond, a thousand at a time), the second with
// a small one. Shared memory: 9248 bytes.
#define SPAN 2048

extern "C" __global__ void __launch_bounds__(256)
embedding_backward(const float *__restrict__ tokens, const float *__restrict__ grad_y, float *__restrict__ out, u32 vocab, u32 d,
                   u32 rows, u32 chunk, int add) {
    SHARED(u32, matches, SPAN);
    SHARED(u32, of_warps, 8);
    SHARED(float, sums, 8 * 32);
    u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    float token = float(blockIdx.x % vocab);
    u32 from = blockIdx.x / vocab * chunk, to = min(rows, from + chunk);
    float *own = out + u64(blockIdx.x) * d;
    for (u32 start = from; start < to; start += SPAN, add = ADD) {
        u32 first = start + 8 * thread;
        u32 held = 0; // bit k: row `first + k` holds the token
#pragma unroll
        for (u32 k = 0; k < 8; k += 4) {
            Four four = load4(tokens, first + k, to);
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                if (first + k + i < to && four.v[i] == token) held |= 1u << (k + i);
        }
        u32 before = __popc(held); // up to and including this thread, within its warp
        for (u32 offset = 1; offset < 32; offset *= 2) {
            u32 other = __shfl_up_sync(0xffffffffu, before, offset);
            if (lane >= offset) before += other;
        }
        // The warps' counts and the list of the last span were read before the last barrier there.
        if (lane == 31) of_warps[warp] = before;
        __syncthreads();
        u32 count = 0;
        for (u32 w = 0; w < 8; w++) {
            if (w == warp) before += count;
            count += of_warps[w];
        }
        u32 place = before - __popc(held);
        for (u32 k = 0; k < 8; k++)
            if (held >> k & 1) matches[place++] = first + k;
        __syncthreads();
        if (count == 0 && add) continue; // alike for all threads
        for (u32 feature = 0; feature < d; feature += 32) {
            u32 f = feature + lane;
            float sum = 0.0f;
            if (f < d)
                for (u32 m = warp; m < count; m += 8) sum += grad_y[f * rows + matches[m]];
            sums[warp * 32 + lane] = sum;
            __syncthreads();
            if (warp == 0 && f < d) {
                for (u32 s = 1; s < 8; s++) sum += sums[s * 32 + lane];
                store(own, f, sum, add);
            }
            __syncthreads(); // the sums are read before the next ones
        }
    }
}

// embedding_sum: ∂table[i] += Σ_c parts[c, i], c in order. One thread a number; 4 bytes a term, limited by memory (80 %).
extern "C" __global__ void __launch_bounds__(256)
embedding_sum(const float *__restrict__ parts, u32 chunks, float *__restrict__ grad_table, u32 n) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float sum = 0.0f;
        for (u32 c = 0; c < chunks; c++) sum += parts[u64(c) * n + i];
        grad_table[i] += sum;
    }
}
