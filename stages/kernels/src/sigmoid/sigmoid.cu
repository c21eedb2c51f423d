// sigmoid_forward, sigmoid_backward: the squashing functions of sigmoid/mod.rs, where the formulas and the CPU twin are.
//
// One thread for four numbers at a time. Bytes: 8 a number forward, 12 backward (16 when it adds): limited by memory,
// about 90 % of its bandwidth expected; the swish functions have up to four exponentials a number and reach 60 %.
enum Kind { NORMAL, HARD, LEAKY_HARD, UPPER_LEAKY_HARD, LOWER_LEAKY_HARD, SWISH_HARD, SWISH, UPSIDE_DOWN_SWISH };

// `a` is α or β; the rest belongs to the smooth hard sigmoid.
struct Sigmoid {
    int kind;
    float a, scale, x_shift, y_shift;
};

__device__ __forceinline__ float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float swish(float x, float beta) { return x * logistic(beta * x); }
__device__ __forceinline__ float swish_slope(float x, float beta) {
    float s = logistic(beta * x);
    return s + x * beta * s * (1.0f - s);
}
// NaN stays NaN, unlike with fminf and fmaxf.
__device__ __forceinline__ float clamp(float x) { return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }

__device__ __forceinline__ float value(const Sigmoid &s, float x) {
    switch (s.kind) {
    case NORMAL: return logistic(x);
    case LEAKY_HARD: return x > 0.0f ? fminf(x, 1.0f) : s.a * x;
    case UPPER_LEAKY_HARD: return x > 1.0f ? 1.0f + s.a * (x - 1.0f) : clamp(x);
    case SWISH: return swish(x, s.a);
    case UPSIDE_DOWN_SWISH: return swish(x, -s.a);
    case SWISH_HARD: {
        float t = x - s.x_shift;
        return s.y_shift + (swish(t - s.scale, -s.a) - swish(t, s.a)) + (swish(t + s.scale, s.a) - swish(t, -s.a));
    }
    default: return clamp(x);
    }
}

__device__ __forceinline__ float gradient(const Sigmoid &s, float x, float g) {
    switch (s.kind) {
    case NORMAL: {
        float y = logistic(x);
        return g * y * (1.0f - y);
    }
    case HARD: return x >= 0.0f && x <= 1.0f ? g : 0.0f;
    case LEAKY_HARD: return x <= 0.0f ? s.a * g : x <= 1.0f ? g : 0.0f;
    case UPPER_LEAKY_HARD: return x > 1.0f ? s.a * g : x >= 0.0f ? g : 0.0f;
    case LOWER_LEAKY_HARD: return x <= 0.0f ? (g < 0.0f ? s.a * g : 0.0f) : x <= 1.0f ? g : 0.0f;
    case SWISH: return g * swish_slope(x, s.a);
    case UPSIDE_DOWN_SWISH: return g * swish_slope(x, -s.a);
    default: {
        float t = x - s.x_shift;
        return g * ((swish_slope(t - s.scale, -s.a) - swish_slope(t, s.a)) +
                    (swish_slope(t + s.scale, s.a) - swish_slope(t, -s.a)));
    }
    }
}

extern "C" __global__ void __launch_bounds__(256)
sigmoid_forward(Sigmoid s, const float *__restrict__ x, float *__restrict__ y, u32 n) {
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) a.v[k] = value(s, a.v[k]);
        store4(y, i, n, a, WRITE);
    }
}

extern "C" __global__ void __launch_bounds__(256)
sigmoid_backward(Sigmoid s, const float *__restrict__ x, const float *__restrict__ grad_y, float *__restrict__ grad_x, u32 n,
                 int add) {
    FOR_EACH_FOUR(i, n) {
        Four a = load4(x, i, n), g = load4(grad_y, i, n);
#pragma unroll
        for (int k = 0; k < 4; k++) g.v[k] = gradient(s, a.v[k], g.v[k]);
        store4(grad_x, i, n, g, add);
    }
}
