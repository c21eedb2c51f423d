// What a kernel module and the emulated driver agree on. Included by the shim and by the driver's own sources.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SPDFLOW_EMULATOR_RED_ZONE 64

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// The built-in variables of the thread that runs. Kernels run under one lock, one thread at a time.
struct spdflow_emulator_builtins {
    uint3 thread_index, block_index;
    dim3 block_dim, grid_dim;
};

// One kernel of a module: `run` calls it for the current thread. The table ends with a null name.
struct spdflow_emulator_kernel {
    const char *name;
    void (*run)(void **parameters);
    unsigned max_threads; // of __launch_bounds__, 1024 without
};

enum spdflow_emulator_barrier_kind { SPDFLOW_BARRIER, SPDFLOW_BARRIER_OR, SPDFLOW_BARRIER_AND, SPDFLOW_BARRIER_COUNT };
enum spdflow_emulator_warp_kind { SPDFLOW_SYNC, SPDFLOW_SHUFFLE, SPDFLOW_BALLOT, SPDFLOW_MATCH };

extern "C" {
extern spdflow_emulator_builtins spdflow_emulator_current;
extern const spdflow_emulator_kernel spdflow_emulator_kernels[];

int spdflow_emulator_barrier(int kind, int predicate);
// Meets the lanes of `mask`: SHUFFLE returns the value of lane `source`, BALLOT the lanes whose value is not 0, MATCH
// the lanes with the same value.
uint64_t spdflow_emulator_warp(int kind, unsigned mask, uint64_t value, unsigned source);
unsigned spdflow_emulator_active_mask(void);
void *spdflow_emulator_dynamic_shared(void);
[[noreturn]] void spdflow_emulator_trap(const char *message);

// For the emulated communication library: whether a collective may touch the bytes, and that they are written now.
int spdflow_emulator_check_range(uint64_t address, size_t size, const char *who);
void spdflow_emulator_mark_written(uint64_t address, size_t size);
int spdflow_emulator_current_device(void);
// Between these two, work that a collective does beside its caller occupies the device's streams.
void spdflow_emulator_stream_begin(int device);
void spdflow_emulator_stream_end(int device);
}
