// Wrong kernels, each with the one mistake that its name says; the checker has to find it.

extern "C" __global__ void read_past_end(const unsigned n, const float *x, float *y) {
    const unsigned i = threadIdx.x;
    if (i < n) y[i] = x[i + 1];
}

extern "C" __global__ void write_past_end(const unsigned n, float *y) {
    const unsigned i = threadIdx.x;
    if (i <= n) y[i] = 1.0f;
}

extern "C" __global__ void shared_overrun(float *y) {
    __shared__ float tile[64];
    tile[threadIdx.x + 1] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void shared_overrun_by_pointer(float *y) {
    SHARED(float, first, 64);
    SHARED(float, second, 64);
    float *p = first + threadIdx.x;
    p[1] = 1.0f;
    second[threadIdx.x] = 2.0f;
    __syncthreads();
    y[threadIdx.x] = first[threadIdx.x] + second[threadIdx.x];
}

extern "C" __global__ void missing_barrier(float *y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = y[threadIdx.x];
    y[threadIdx.x] = tile[63 - threadIdx.x];
}

extern "C" __global__ void missing_second_barrier(float *y) {
    __shared__ float tile[64];
    for (int round = 0; round < 2; round++) {
        tile[threadIdx.x] = y[threadIdx.x];
        __syncthreads();
        y[threadIdx.x] = tile[63 - threadIdx.x];
    }
}

extern "C" __global__ void missing_warp_barrier(float *y) {
    __shared__ float line[32];
    line[threadIdx.x] = y[threadIdx.x];
    y[threadIdx.x] = line[31 - threadIdx.x];
}

extern "C" __global__ void race_of_blocks(float *y) { y[threadIdx.x] = float(blockIdx.x); }

extern "C" __global__ void misaligned(const float *x, float *y) {
    const float4 v = *reinterpret_cast<const float4 *>(x + 1);
    y[0] = v.x + v.y + v.z + v.w;
}

extern "C" __global__ void uninitialised(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x]; }

extern "C" __global__ void uninitialised_shared(float *y) {
    __shared__ float tile[64];
    if (threadIdx.x < 63) tile[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void barrier_after_return(float *y) {
    if (threadIdx.x == 7) return;
    y[threadIdx.x] = 1.0f;
    __syncthreads();
}

extern "C" __global__ void barrier_against_warp(float *y) {
    if (threadIdx.x == 7) __syncthreads();
    else __syncwarp();
    y[threadIdx.x] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(128) bounded(float *y) { y[threadIdx.x] = 1.0f; }

extern "C" __global__ void much_shared(float *y) {
    __shared__ float tile[13000];
    tile[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void absent_lane(float *y) {
    y[threadIdx.x] = __shfl_down_sync(0xffffffffu, float(threadIdx.x), 16);
}

extern "C" __global__ void null_pointer(float *y) { y[threadIdx.x] = 1.0f; }

extern "C" __global__ void atomic_and_plain(float *y) {
    atomicAdd(y, 1.0f);
    if (threadIdx.x == 63) y[1] = y[0];
}

extern "C" __global__ void read_of_another_block(float *y) {
    if (blockIdx.x == 0) y[threadIdx.x] = 1.0f;
    else y[threadIdx.x + 64] = y[threadIdx.x];
}

extern "C" __global__ void failing_assertion(float *y) { assert(y[threadIdx.x] < 5.0f); }

extern "C" __global__ void local_overrun(const unsigned n, float *y) {
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (unsigned i = 0; i <= n; i++) sums[i] += y[i];
    y[0] = sums[0] + sums[1] + sums[2] + sums[3];
}

extern "C" __global__ void dynamic_overrun(float *y) {
    extern __shared__ float line[];
    line[threadIdx.x] = y[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = line[threadIdx.x];
}

extern "C" __global__ void late_write(float *y) { y[threadIdx.x] = 1.0f; }
