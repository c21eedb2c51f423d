// Correct kernels: right results and no finding for every seed.
#define TILE 16

extern "C" __global__ void saxpy(const unsigned n, const float a, const float *__restrict__ x, float *__restrict__ y) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = fmaf(a, x[i], y[i]);
}

// y (columns, rows) = the transpose of x (rows, columns)
extern "C" __global__ void __launch_bounds__(TILE * TILE, 2) transpose(const unsigned rows, const unsigned columns,
                                                                       const float *x, float *y) {
    __shared__ float tile[TILE][TILE + 1];
    unsigned row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    if (row < rows && column < columns) tile[threadIdx.y][threadIdx.x] = x[row * columns + column];
    __syncthreads();
    row = blockIdx.y * TILE + threadIdx.x;
    column = blockIdx.x * TILE + threadIdx.y;
    if (row < rows && column < columns) y[column * rows + row] = tile[threadIdx.x][threadIdx.y];
}

__device__ __forceinline__ float warp_sum(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

// partial[block] = the sum of the block's share of x; then one block sums the partial sums with the same kernel
extern "C" __global__ void __launch_bounds__(256) block_sum(const unsigned n, const float *x, float *partial) {
    SHARED(float, warps, 8);
    float v = 0.0f;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0.0f;
        v = warp_sum(v);
        if (threadIdx.x == 0) partial[blockIdx.x] = v;
    }
}

extern "C" __global__ void grid_2d(const unsigned width, const unsigned height, int *y) {
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column < width && row < height) y[row * width + column] = int(row * 1000 + column);
}

// counts[value % 8] by atomics in shared and then in device memory
extern "C" __global__ void histogram(const unsigned n, const unsigned *values, unsigned *counts) {
    __shared__ unsigned mine[8];
    if (threadIdx.x < 8) mine[threadIdx.x] = 0;
    __syncthreads();
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&mine[values[i] % 8], 1u);
    __syncthreads();
    if (threadIdx.x < 8) atomicAdd(counts + threadIdx.x, mine[threadIdx.x]);
}

// Warp barriers instead of block barriers; ballots and 8-byte shuffles.
extern "C" __global__ void warp_wise(const float *x, float *y, unsigned *ballots, double *last) {
    __shared__ float line[64];
    const unsigned t = threadIdx.x, lane = t % 32;
    line[t] = x[t];
    __syncwarp();
    y[t] = line[t / 32 * 32 + 31 - lane];
    const unsigned ballot = __ballot_sync(0xffffffffu, x[t] > 31.5f);
    if (lane == 0) ballots[t / 32] = ballot;
    const double d = __shfl_sync(0xffffffffu, double(x[t]), 31);
    if (lane == 0) last[t / 32] = d;
}

// Dynamic shared memory and float4 accesses.
extern "C" __global__ void reverse4(const float4 *x, float4 *y) {
    extern __shared__ float4 quads[];
    quads[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = quads[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void counting(const int *x, int *y) {
    const int n = __syncthreads_count(x[threadIdx.x] > 0), any = __syncthreads_or(x[threadIdx.x] > 62);
    const int all = __syncthreads_and(x[threadIdx.x] >= 0);
    if (threadIdx.x == 0) y[0] = n, y[1] = any, y[2] = all;
}

// Neighbouring threads write neighbouring bytes; two buffers take turns, so that one barrier a round is enough.
extern "C" __global__ void turns(const unsigned rounds, const unsigned char *x, unsigned char *y) {
    __shared__ unsigned char buffers[2][64];
    const unsigned t = threadIdx.x;
    buffers[0][t] = x[blockIdx.x * 64 + t];
    __syncthreads();
    for (unsigned round = 0; round < rounds; round++) {
        buffers[(round + 1) % 2][t] = buffers[round % 2][(t + 1) % 64];
        __syncthreads();
    }
    y[blockIdx.x * 64 + t] = buffers[rounds % 2][t];
}

struct Range {
    int first;
    long long step;
};

// A structure by value, a table of constants, a template with shared memory of its own.
__constant__ int TABLE[4] = {1, 10, 100, 1000};

template <int N> __device__ int sum_of(int value) {
    __shared__ int all[N];
    all[threadIdx.x] = value;
    __syncthreads();
    int sum = 0;
    for (int i = 0; i < N; i++) sum += all[i];
    return sum;
}

extern "C" __global__ __launch_bounds__(32) void by_value(const Range range, int *y) {
    const int value = int(range.first + range.step * threadIdx.x) * TABLE[threadIdx.x % 4];
    const int sum = sum_of<32>(value);
    y[threadIdx.x] = sum;
}

// In-place updates of neighbouring bytes and halves of a word, each by a thread of its own, then of the whole words.
extern "C" __global__ void parts(unsigned char *bytes, unsigned short *halves, unsigned *words) {
    __shared__ unsigned char mine[64];
    mine[threadIdx.x] = bytes[threadIdx.x];
    mine[threadIdx.x] += 1;
    bytes[threadIdx.x] = mine[threadIdx.x];
    halves[threadIdx.x] = halves[threadIdx.x] + 1;
    __syncthreads();
    if (threadIdx.x < 16) words[threadIdx.x] = reinterpret_cast<const unsigned *>(mine)[threadIdx.x];
}

// Plain accesses before and after atomic ones, with barriers between; lanes that hand a word on within their warp.
extern "C" __global__ void hand_on(float *y) {
    __shared__ float total;
    __shared__ float word[2];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x == 5) total = 0.0f;
    __syncthreads();
    const float before = total;
    __syncthreads();
    atomicAdd(&total, 1.0f + before);
    __syncthreads();
    for (unsigned turn = 0; turn < 32; turn++) {
        if (lane == turn) word[warp] = turn == 0 ? total : word[warp] + 1.0f;
        __syncwarp();
    }
    y[threadIdx.x] = word[warp];
}
