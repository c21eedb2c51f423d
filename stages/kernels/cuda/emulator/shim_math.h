// The vector types, conversions and arithmetic functions of CUDA that C++ has not, for shim.h. Fast approximations
// (__expf, rsqrtf, ...) are computed exactly here, so they differ from the hardware's in the last bits.
#pragma once

#include <math.h>
#include <stdint.h>

namespace spdflow_emulator {
// The few type tools needed, because <utility> costs more to compile than all of this file.
template <size_t...> struct Indices {};
template <size_t N, size_t... REST> struct MakeIndices : MakeIndices<N - 1, N - 1, REST...> {};
template <size_t... ALL> struct MakeIndices<0, ALL...> {
    using Type = Indices<ALL...>;
};
template <class T> struct RemoveConst {
    using Type = T;
};
template <class T> struct RemoveConst<const T> {
    using Type = T;
};
template <class T> using remove_const_t = typename RemoveConst<T>::Type;

template <class To, class From> inline To cast_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace spdflow_emulator

#define SPDFLOW_VECTORS(type, name, align2, align4)                                                                    \
    struct name##1 { type x; };                                                                                        \
    struct alignas(align2) name##2 { type x, y; };                                                                     \
    struct name##3 { type x, y, z; };                                                                                  \
    struct alignas(align4) name##4 { type x, y, z, w; };                                                               \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                   \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                        \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
#define uint3 spdflow_emulator_uint3 // interface.h has it already
SPDFLOW_VECTORS(unsigned, uint, 8, 16)
#undef uint3
SPDFLOW_VECTORS(float, float, 8, 16)
SPDFLOW_VECTORS(double, double, 16, 16)
SPDFLOW_VECTORS(int, int, 8, 16)
SPDFLOW_VECTORS(short, short, 4, 8)
SPDFLOW_VECTORS(unsigned short, ushort, 4, 8)
SPDFLOW_VECTORS(signed char, char, 2, 4)
SPDFLOW_VECTORS(unsigned char, uchar, 2, 4)
SPDFLOW_VECTORS(long long, longlong, 16, 16)
SPDFLOW_VECTORS(unsigned long long, ulonglong, 16, 16)
#undef SPDFLOW_VECTORS

// As CUDA overloads them: the arguments' usual arithmetic conversions decide, fminf and fmaxf for floats.
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
#define SPDFLOW_MIN_MAX(result, a_type, b_type)                                                                        \
    inline result min(a_type a, b_type b) { return (result)a < (result)b ? (result)a : (result)b; }                    \
    inline result max(a_type a, b_type b) { return (result)a > (result)b ? (result)a : (result)b; }
SPDFLOW_MIN_MAX(unsigned, unsigned, unsigned)
SPDFLOW_MIN_MAX(unsigned, int, unsigned)
SPDFLOW_MIN_MAX(unsigned, unsigned, int)
SPDFLOW_MIN_MAX(long, long, long)
SPDFLOW_MIN_MAX(unsigned long, unsigned long, unsigned long)
SPDFLOW_MIN_MAX(unsigned long, long, unsigned long)
SPDFLOW_MIN_MAX(unsigned long, unsigned long, long)
SPDFLOW_MIN_MAX(long long, long long, long long)
SPDFLOW_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
SPDFLOW_MIN_MAX(unsigned long long, long long, unsigned long long)
SPDFLOW_MIN_MAX(unsigned long long, unsigned long long, long long)
#undef SPDFLOW_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }

inline unsigned __float_as_uint(float x) { return spdflow_emulator::cast_bits<unsigned>(x); }
inline int __float_as_int(float x) { return spdflow_emulator::cast_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return spdflow_emulator::cast_bits<float>(x); }
inline float __int_as_float(int x) { return spdflow_emulator::cast_bits<float>(x); }
inline long long __double_as_longlong(double x) { return spdflow_emulator::cast_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return spdflow_emulator::cast_bits<double>(x); }
inline int __double2hiint(double x) { return int(uint64_t(__double_as_longlong(x)) >> 32); }
inline int __double2loint(double x) { return int(__double_as_longlong(x)); }
inline double __hiloint2double(int high, int low) {
    return __longlong_as_double((long long)(uint64_t(unsigned(high)) << 32 | unsigned(low)));
}

// Rounding. The host rounds to nearest even, which is what _rn means; nearbyint follows that mode.
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return unsigned(nearbyintf(x)); }
inline unsigned __float2uint_rz(float x) { return unsigned(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __ull2float_rn(unsigned long long x) { return float(x); }
inline double __uint2double_rn(unsigned x) { return double(x); }
inline float __double2float_rn(double x) { return float(x); }

// Never contracted: the emulator compiles with -ffp-contract=off.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __frsqrt_rn(float x) { return float(1.0 / sqrt(double(x))); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float __fdividef(float a, float b) { return a / b; }
inline float fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline void __sincosf(float x, float *s, float *c) { *s = sinf(x), *c = cosf(x); }
inline float cospif(float x) { return cosf(x * 3.14159265358979323846f); }
inline float sinpif(float x) { return sinf(x * 3.14159265358979323846f); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752440f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (x >> i & 1u) << (31 - i);
    return reversed;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= unsigned(bytes >> ((selector >> (4 * i) & 7) * 8) & 0xff) << (8 * i);
    return result;
}
inline int __mul24(int a, int b) { return (a << 8 >> 8) * (b << 8 >> 8); }

template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline T __ldcs(const T *p) { return *p; }
template <class T> inline T __ldcg(const T *p) { return *p; }
template <class T> inline void __stcs(T *p, T value) { *p = value; }
template <class T> inline void __stcg(T *p, T value) { *p = value; }
