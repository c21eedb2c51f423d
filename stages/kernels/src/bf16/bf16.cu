// bf16_round: y[i] (+)= the bfloat16 number closest to x[i]. Formula: bf16/mod.rs, also the CPU twin.
//
// One thread for four numbers at a time. Bytes: 8 a number (12 when it adds): limited by memory, about 90 % of its
// bandwidth expected.
extern "C" __global__ void __launch_bounds__(256)
bf16_round(const float *__restrict__ x, float *__restrict__ y, u32 n, int add) {
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            u32 bits = __float_as_uint(a.v[k]);
            bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
            // Just under half a unit, and exactly half where the last bit that stays is odd.
            u32 rounded = is_nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1);
            a.v[k] = __uint_as_float(rounded & 0xffff0000u);
        }
        store4(y, i, n, a, add);
    }
}
