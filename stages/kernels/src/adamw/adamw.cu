// adamw_step: with g = gradient[i] · gradient_scale, m += keep1 (g − m); v = beta2 v + keep2 g²;
// p = decay p − step_size m / (√v / root + ε). The factors are those of adamw/mod.rs.
//
// One thread for four numbers at a time, 256 threads a block. Bytes: 28 a number (four arrays read, three written), and a
// square root and two divisions: limited by memory, about 85 % of its bandwidth expected. CPU twin: adamw/mod.rs.
struct Factors {
    float decay, keep1, beta2, keep2, step_size, root, eps, gradient_scale;
};

extern "C" __global__ void __launch_bounds__(256)
adamw_step(float *__restrict__ parameter, const float *__restrict__ gradient, float *__restrict__ mean,
           float *__restrict__ variance, Factors f, u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four p = load4(parameter, i, n), g = load4(gradient, i, n), m = load4(mean, i, n), v = load4(variance, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float slope = g.v[k] * f.gradient_scale;
            m.v[k] += f.keep1 * (slope - m.v[k]);
            v.v[k] = v.v[k] * f.beta2 + f.keep2 * slope * slope;
            float denominator = sqrtf(v.v[k]) / f.root + f.eps;
            p.v[k] = p.v[k] * f.decay - f.step_size * (m.v[k] / denominator);
        }
        store4(parameter, i, n, p, WRITE);
        store4(mean, i, n, m, WRITE);
        store4(variance, i, n, v, WRITE);
    }
}
