// ascend: out[i] = clamp(sources[i] + step · sign(gradient[i]), 0, 1), the sign of 0 being 0.
//
// One thread for four numbers at a time, 256 threads a block. Bytes: 12 a number; limited by memory, about 90 % of its
// bandwidth expected. Rounds as the CPU does: a step times a sign is exact. CPU twin: ascent/mod.rs.
extern "C" __global__ void __launch_bounds__(256)
ascend(const float *__restrict__ sources, const float *__restrict__ gradient, float step, float *__restrict__ out, u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four s = load4(sources, i, n), g = load4(gradient, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float direction = float(int(g.v[k] > 0.0f) - int(g.v[k] < 0.0f));
            float moved = s.v[k] + step * direction;
            // A NaN must stay one, which fminf and fmaxf would not allow.
            s.v[k] = moved < 0.0f ? 0.0f : moved > 1.0f ? 1.0f : moved;
        }
        store4(out, i, n, s, WRITE);
    }
}
