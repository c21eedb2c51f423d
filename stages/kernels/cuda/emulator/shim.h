// What a .cu file sees when the emulator compiles it as C++: CUDA's keywords, built-in variables, barriers, warp
// collectives and atomics. Types and arithmetic are in shim_math.h. Included by nvrtc.cpp before the source, which then
// stands in an unnamed namespace.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "interface.h"

#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __CUDA_ARCH__ 800
#define SPDFLOW_EMULATOR 1

// A kernel is never inlined into its launcher: the checker's instrumentation would be lost, which the launcher has not.
#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__
#define __managed__

// Shared variables are static: blocks run one after another. In a section of their own, so that the emulator finds them
// (except under the address sanitizer, which puts red zones only around variables of the usual sections).
#ifdef SPDFLOW_EMULATOR_ASAN
#define __shared__ static
#else
#define __shared__ static __attribute__((section(".spdflow_shared")))
#endif

// `SHARED(float, tile, 64)` declares `__shared__ float tile[64]` with red zones, which find accesses through pointers
// past its end. Without the macro an index past the end is found, a pointer into the neighbouring array is not.
#define SHARED(type, name, size)                                                                                       \
    __shared__ struct {                                                                                                \
        unsigned char before[SPDFLOW_EMULATOR_RED_ZONE];                                                               \
        alignas(16) type array[size];                                                                                  \
        alignas(16) unsigned char after[SPDFLOW_EMULATOR_RED_ZONE];                                                    \
    } spdflow_shared_##name;                                                                                           \
    auto &name = spdflow_shared_##name.array

#define threadIdx (spdflow_emulator_current.thread_index)
#define blockIdx (spdflow_emulator_current.block_index)
#define blockDim (spdflow_emulator_current.block_dim)
#define gridDim (spdflow_emulator_current.grid_dim)
#define warpSize 32

#include "shim_math.h"

namespace spdflow_emulator {

template <class To, class From> inline To bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    __builtin_memcpy(&to, &value, sizeof to);
    return to;
}

template <class T> inline uint64_t widen(T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    if constexpr (sizeof(T) == 4)
        return bits<uint32_t>(value);
    else
        return bits<uint64_t>(value);
}

template <class T> inline T narrow(uint64_t value) {
    if constexpr (sizeof(T) == 4)
        return bits<T>(uint32_t(value));
    else
        return bits<T>(value);
}

inline unsigned linear_thread() { return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x; }

template <class T> inline T shuffle(unsigned mask, T value, unsigned source) {
    return narrow<T>(spdflow_emulator_warp(SPDFLOW_SHUFFLE, mask, widen(value), source));
}

// An unsigned integer of the size of T, on which atomics are done: fibers never pre-empt each other, so that a load and
// a store are one step, and the checker sees both as atomic.
template <size_t SIZE> struct WordOf;
template <> struct WordOf<4> {
    using Type = uint32_t;
};
template <> struct WordOf<8> {
    using Type = uint64_t;
};

template <class T, class Next> inline T atomic(T *address, Next next) {
    using Word = typename WordOf<sizeof(T)>::Type;
    Word *word = reinterpret_cast<Word *>(address);
    T old = bits<T>(__atomic_load_n(word, __ATOMIC_RELAXED));
    __atomic_store_n(word, bits<Word>(T(next(old))), __ATOMIC_RELAXED);
    return old;
}

template <class T> struct Same {
    using Type = T;
}; // keeps the second argument from deciding T

} // namespace spdflow_emulator

inline void __syncthreads() { spdflow_emulator_barrier(SPDFLOW_BARRIER, 0); }
inline int __syncthreads_or(int p) { return spdflow_emulator_barrier(SPDFLOW_BARRIER_OR, p); }
inline int __syncthreads_and(int p) { return spdflow_emulator_barrier(SPDFLOW_BARRIER_AND, p); }
inline int __syncthreads_count(int p) { return spdflow_emulator_barrier(SPDFLOW_BARRIER_COUNT, p); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __syncwarp(unsigned mask = 0xffffffffu) { spdflow_emulator_warp(SPDFLOW_SYNC, mask, 0, 0); }
inline void __trap() { spdflow_emulator_trap("__trap()"); }
inline void __nanosleep(unsigned) {}
inline long long clock64() { return 0; }
#define assert(condition) ((condition) ? void() : spdflow_emulator_trap("assertion failed: " #condition))

template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    unsigned lane = spdflow_emulator::linear_thread() % 32, group = lane / width * width;
    return spdflow_emulator::shuffle(mask, value, group + unsigned(source) % width);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    unsigned lane = spdflow_emulator::linear_thread() % 32, group = lane / width * width;
    return spdflow_emulator::shuffle(mask, value, lane - group >= delta ? lane - delta : lane);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    unsigned lane = spdflow_emulator::linear_thread() % 32, group = lane / width * width;
    return spdflow_emulator::shuffle(mask, value, lane + delta < group + width ? lane + delta : lane);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    unsigned lane = spdflow_emulator::linear_thread() % 32, source = lane ^ unsigned(lanes);
    return spdflow_emulator::shuffle(mask, value, source < lane / width * width + width ? source : lane);
}
inline unsigned __ballot_sync(unsigned mask, int p) {
    return unsigned(spdflow_emulator_warp(SPDFLOW_BALLOT, mask, p != 0, 0));
}
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
template <class T> inline unsigned __match_any_sync(unsigned mask, T value) {
    return unsigned(spdflow_emulator_warp(SPDFLOW_MATCH, mask, spdflow_emulator::widen(value), 0));
}
inline unsigned __activemask() { return spdflow_emulator_active_mask(); }

template <class T> using spdflow_same = typename spdflow_emulator::Same<T>::Type;
template <class T> inline T atomicAdd(T *p, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [v](T old) { return old + v; });
}
template <class T> inline T atomicSub(T *p, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [v](T old) { return old - v; });
}
template <class T> inline T atomicMax(T *p, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [v](T old) { return old < v ? v : old; });
}
template <class T> inline T atomicMin(T *p, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [v](T old) { return v < old ? v : old; });
}
template <class T> inline T atomicAnd(T *p, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [v](T old) { return old & v; });
}
template <class T> inline T atomicOr(T *p, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [v](T old) { return old | v; });
}
template <class T> inline T atomicXor(T *p, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [v](T old) { return old ^ v; });
}
template <class T> inline T atomicExch(T *p, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [v](T) { return v; });
}
template <class T> inline T atomicCAS(T *p, spdflow_same<T> expected, spdflow_same<T> v) {
    return spdflow_emulator::atomic(p, [=](T old) { return old == expected ? v : old; });
}
inline unsigned atomicInc(unsigned *p, unsigned limit) {
    return spdflow_emulator::atomic(p, [limit](unsigned old) { return old >= limit ? 0u : old + 1; });
}

// Calls a kernel with the arguments that cuLaunchKernel was given; not checked, since those lie in the host's memory.
namespace spdflow_emulator {
template <auto KERNEL, class Function> struct Launcher;
template <auto KERNEL, class... Arguments> struct Launcher<KERNEL, void (*)(Arguments...)> {
    template <size_t... INDEX>
    __attribute__((no_sanitize("thread", "undefined"))) static void call(void **parameters, Indices<INDEX...>) {
        KERNEL(*static_cast<remove_const_t<Arguments> *>(parameters[INDEX])...);
    }
    __attribute__((no_sanitize("thread", "undefined"))) static void run(void **parameters) {
        call(parameters, typename MakeIndices<sizeof...(Arguments)>::Type{});
    }
};
} // namespace spdflow_emulator
#define SPDFLOW_EMULATOR_KERNEL(name, threads) {#name, spdflow_emulator::Launcher<&name, decltype(&name)>::run, threads}
