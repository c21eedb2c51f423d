// What hooks.cpp calls in checker.cpp.
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

// Checks one access of the running thread; `code` is where in the kernel it happens.
void access(uintptr_t address, size_t size, unsigned access_kind, uintptr_t code);

} // namespace emulator
