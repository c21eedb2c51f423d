// What a .cu file sees of CUDA when it is compiled for the CPU.
#pragma once
#include "machine.h"

#ifndef __x86_64__
#error "the emulator switches fibers with x86-64 instructions"
#endif
asm(R"(.text
.globl machine_switch
.hidden machine_switch
machine_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static thread_local

// Shared memory of a block: made new for every block, with numbers in it that nobody wrote.
extern "C" void checker_new_shared(void *memory, size_t bytes);
#define SHARED(type, name, size) \
    static thread_local struct { \
        uint64_t block; \
        char before[120]; /* what lies next to an array is nobody's */ \
        alignas(16) char bytes[sizeof(type) * (size)]; \
        char behind[64]; \
    } name##_memory; \
    if (name##_memory.block != machine::state.block_number) { \
        name##_memory.block = machine::state.block_number; \
        memset(name##_memory.bytes, 0xff, sizeof name##_memory.bytes); \
        checker_new_shared(name##_memory.bytes, sizeof name##_memory.bytes); \
    } \
    type *name = reinterpret_cast<type *>(name##_memory.bytes)

#define threadIdx (machine::state.current->index)
#define blockIdx (machine::state.block_index)
#define blockDim (machine::state.block)
#define gridDim (machine::state.grid)
#define warpSize 32

struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline void __syncthreads() { machine::barrier(); }
inline void __syncwarp(unsigned mask = machine::EVERYBODY) { machine::exchange(mask, 0, -1); }

template <class T> T shuffled(unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = machine::exchange(mask, bits, source);
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline int lane() { return machine::state.current->number % 32; }
// Past either end of the warp a lane keeps its own value, as on a device.
inline int within(int source) { return source < 0 || source > 31 ? lane() : source; }
template <class T> T __shfl_sync(unsigned mask, T value, int source) { return shuffled(mask, value, source & 31); }
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits) { return shuffled(mask, value, lane() ^ bits); }
template <class T> T __shfl_down_sync(unsigned mask, T value, int by) { return shuffled(mask, value, within(lane() + by)); }
template <class T> T __shfl_up_sync(unsigned mask, T value, int by) { return shuffled(mask, value, within(lane() - by)); }
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned result = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) result |= unsigned(machine::exchange(mask, predicate != 0, i) & 1) << i;
    return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class To, class From> To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
inline int __float_as_int(float x) { return same_bits<int>(x); }
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return same_bits<double>(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __ldg(const float *from) { return *from; }
using std::isnan;
template <class A, class B> auto min(A a, B b) -> decltype(a + b) { return a < b ? a : b; }
template <class A, class B> auto max(A a, B b) -> decltype(a + b) { return a > b ? a : b; }
