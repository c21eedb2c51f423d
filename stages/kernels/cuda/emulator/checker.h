// What hooks.cpp, checker.cpp and races.cpp share.
#pragma once

#include "runtime.h"

namespace emulator {

enum AccessKind : unsigned { READ = 1, WRITE = 2, ATOMIC = 4 };

// Where an address lies.
struct Memory {
    enum Kind { DEVICE, SHARED } kind;
    uint32_t allocation; // its number, of device memory
    size_t size;
    ptrdiff_t offset;
    const char *name; // of the shared array
};

std::string describe(const Memory &memory);
std::string thread_name(uint32_t block, uint32_t thread);

// races.cpp: whether an access races with earlier ones; `place` is its offset in device memory or among the shared.
constexpr size_t MOST_SHADOWED_SHARED = size_t(64) << 20; // all shared arrays of a module, and the dynamic ones
void check_order(const Memory &memory, size_t place, size_t size, bool write, bool atomic, uintptr_t code);

// Checks one access of the running thread; `code` is where in the kernel it happens.
void access(uintptr_t address, size_t size, unsigned access_kind, uintptr_t code);

} // namespace emulator
