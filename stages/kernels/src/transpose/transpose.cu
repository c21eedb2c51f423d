// transpose: out[c, r] (+)= x[r, c]; x is [rows, cols]. Formula: transpose/mod.rs, also the CPU twin.
//
// Blocks of 32 x 8 threads for a square of 32 by way of shared memory (4224 bytes, a column more than it needs so that
// a column's numbers lie in different banks); both sides are read and written along memory. 8 bytes a number (12 when
// it adds): limited by memory, about 80 % expected.
extern "C" __global__ void __launch_bounds__(256)
transpose(const float *__restrict__ x, float *__restrict__ out, u32 rows, u32 cols, int add) {
    SHARED(float, square, 32 * 33);
    u32 x_of = threadIdx.x % 32, y_of = threadIdx.x / 32;
    u32 row = blockIdx.y * 32, col = blockIdx.x * 32;
    for (u32 i = y_of; i < 32; i += 8)
        if (row + i < rows && col + x_of < cols) square[i * 33 + x_of] = x[(row + i) * cols + col + x_of];
    __syncthreads();
    for (u32 i = y_of; i < 32; i += 8)
        if (col + i < cols && row + x_of < rows) store(out, (col + i) * rows + row + x_of, square[x_of * 33 + i], add);
}
