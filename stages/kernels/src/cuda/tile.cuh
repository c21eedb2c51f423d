// Products of matrices by tiles: 256 threads compute 64 x 64 numbers of A B, each thread 4 x 4 of them.
//
// The sum over k runs in order, sixteen terms at a time through shared memory, the next sixteen being fetched meanwhile.
// Where the numbers of A and B come from is a type with two functions: `load(k)` returns the thread's four of the panel
// [16][64] that begins at k, zeros past the end, and `put` stores them. So a kernel can compute an operand on the way
// instead of reading it (masked_site.cu). A multiply-add of the inner loop needs half a read of shared memory; about
// half of an H100's multiply-adds expected where all dimensions are large.
#define TILE 64
#define DEPTH 16
#define PITCH 68 // of a row in shared memory: a multiple of four, and not of 32 banks

// The thread's 4 x 4: rows 4 (threadIdx.x / 16) + i and columns 4 (threadIdx.x % 16) + j of the tile.
__device__ __forceinline__ u32 tile_row() { return threadIdx.x / 16 * 4; }
__device__ __forceinline__ u32 tile_column() { return threadIdx.x % 16 * 4; }

// A panel whose memory runs along the tile: number (k, x) at from[k pitch + x].
struct Along {
    const float *from;
    u32 pitch, start, size, depth; // the tile's first x, how many there are, how many k
    bool whole;
    __device__ Along(const float *from, u32 pitch, u32 start, u32 size, u32 depth)
        : from(from), pitch(pitch), start(start), size(size), depth(depth), whole(in_fours(from, pitch)) {}
    __device__ __forceinline__ Four load(u32 k) const {
        u32 row = k + threadIdx.x / 16, x = start + threadIdx.x % 16 * 4;
        return four_of(from, row * pitch + x, row < depth ? left_of(size, x) : 0, whole);
    }
    __device__ __forceinline__ void put(float *panel, Four four) const {
        write4(panel + threadIdx.x / 16 * PITCH + threadIdx.x % 16 * 4, four.v);
    }
};

// A panel whose memory runs along k: number (k, x) at from[x pitch + k].
struct Deep {
    const float *from;
    u32 pitch, start, size, depth;
    bool whole;
    __device__ Deep(const float *from, u32 pitch, u32 start, u32 size, u32 depth)
        : from(from), pitch(pitch), start(start), size(size), depth(depth), whole(in_fours(from, pitch)) {}
    __device__ __forceinline__ Four load(u32 k) const {
        u32 x = start + threadIdx.x / 4, first = k + threadIdx.x % 4 * 4;
        return four_of(from, x * pitch + first, x < size ? left_of(depth, first) : 0, whole);
    }
    __device__ __forceinline__ void put(float *panel, Four four) const {
#pragma unroll
        for (u32 i = 0; i < 4; i++) panel[(threadIdx.x % 4 * 4 + i) * PITCH + threadIdx.x / 4] = four.v[i];
    }
};

// Adds the products of k in from .. to to the thread's 4 x 4.
template <class A, class B>
__device__ __forceinline__ void multiply(const A &a, const B &b, u32 from, u32 to, float (&sum)[4][4]) {
    SHARED(float, left, DEPTH *PITCH);
    SHARED(float, right, DEPTH *PITCH);
    if (from >= to) return;
    Four next_left = a.load(from), next_right = b.load(from);
    for (u32 k = from; k < to; k += DEPTH) {
        __syncthreads(); // the panels may still be read
        a.put(left, next_left);
        b.put(right, next_right);
        __syncthreads();
        if (k + DEPTH < to) {
            next_left = a.load(k + DEPTH);
            next_right = b.load(k + DEPTH);
        }
#pragma unroll
        for (u32 d = 0; d < DEPTH; d++) {
            Four x = read4(left + d * PITCH + tile_row()), y = read4(right + d * PITCH + tile_column());
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] = fmaf(x.v[i], y.v[j], sum[i][j]);
        }
    }
}
