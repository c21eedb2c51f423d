// uniform: out[f, r], a draw in [0, 1) of feature f and row number rows[r]; out is [features, R]. The bits are those of
// the CPU twin, philox/mod.rs.
//
// One thread for four features of one row, which share a Philox block; lanes lie along rows. Blocks of 64 rows by 16
// features. Bytes: 4 a number; about 25 integer operations each: limited by those, about half of the memory's
// bandwidth expected.
extern "C" __global__ void __launch_bounds__(256)
uniform(Stream stream, const u32 *__restrict__ rows, u32 count, u32 features, float *__restrict__ out) {
    u32 r = blockIdx.x * 64 + threadIdx.x % 64, group = blockIdx.y * 4 + threadIdx.x / 64;
    if (r >= count || 4 * group >= features) return;
    Four draws = uniform4(stream, group, rows[r]);
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        if (4 * group + i < features) out[(4 * group + i) * count + r] = draws.v[i];
}
