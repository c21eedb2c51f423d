// The functions that code compiled with -fsanitize=thread,bounds,alignment calls. The sanitizers' own libraries are not
// linked: they know nothing of device memory, blocks and barriers, and see one host thread.
#include <cstdio>

#include "checker.h"

using namespace emulator;

#define CODE reinterpret_cast<uintptr_t>(__builtin_return_address(0))
#define ADDRESS reinterpret_cast<uintptr_t>(address)

#define PLAIN(size)                                                                                                    \
    void __tsan_read##size(void *address) { access(ADDRESS, size, READ, CODE); }                                       \
    void __tsan_write##size(void *address) { access(ADDRESS, size, WRITE, CODE); }                                     \
    void __tsan_read_write##size(void *address) { access(ADDRESS, size, READ | WRITE, CODE); }                         \
    void __tsan_unaligned_read##size(void *address) { access(ADDRESS, size, READ, CODE); }                             \
    void __tsan_unaligned_write##size(void *address) { access(ADDRESS, size, WRITE, CODE); }                           \
    void __tsan_volatile_read##size(void *address) { access(ADDRESS, size, READ, CODE); }                              \
    void __tsan_volatile_write##size(void *address) { access(ADDRESS, size, WRITE, CODE); }

// Fibers never pre-empt each other, so that plain operations are atomic here.
#define ATOMICS(bits)                                                                                                  \
    uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *address, int) {                                    \
        access(ADDRESS, bits / 8, READ | ATOMIC, CODE);                                                                \
        return *address;                                                                                               \
    }                                                                                                                  \
    void __tsan_atomic##bits##_store(uint##bits##_t *address, uint##bits##_t value, int) {                             \
        access(ADDRESS, bits / 8, WRITE | ATOMIC, CODE);                                                               \
        *address = value;                                                                                              \
    }                                                                                                                  \
    uint##bits##_t __tsan_atomic##bits##_fetch_add(uint##bits##_t *address, uint##bits##_t value, int) {               \
        access(ADDRESS, bits / 8, READ | WRITE | ATOMIC, CODE);                                                        \
        uint##bits##_t old = *address;                                                                                 \
        *address = old + value;                                                                                        \
        return old;                                                                                                    \
    }                                                                                                                  \
    uint##bits##_t __tsan_atomic##bits##_exchange(uint##bits##_t *address, uint##bits##_t value, int) {                \
        access(ADDRESS, bits / 8, READ | WRITE | ATOMIC, CODE);                                                        \
        uint##bits##_t old = *address;                                                                                 \
        *address = value;                                                                                              \
        return old;                                                                                                    \
    }

// What the undefined behaviour sanitizer passes: a place in the source first, of which the address is enough here.
extern "C" {
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

void __tsan_read_range(void *address, size_t size) { access(ADDRESS, size, READ, CODE); }
void __tsan_write_range(void *address, size_t size) { access(ADDRESS, size, WRITE, CODE); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

void __ubsan_handle_out_of_bounds(void *, uintptr_t index) {
    finding("out of bounds", CODE,
            "index " + std::to_string(intptr_t(index)) + " of an array that is too short for it");
    abandon_launch();
}

void __ubsan_handle_type_mismatch_v1(void *data, uintptr_t address) {
    struct Mismatch {
        const char *file;
        uint32_t line, column;
        const void *type;
        uint8_t log_alignment, check;
    };
    size_t alignment = size_t(1) << static_cast<Mismatch *>(data)->log_alignment;
    if (address == 0) {
        finding("out of bounds", CODE, "access through a null pointer");
        abandon_launch();
    }
    char text[160];
    if (const Allocation *allocation = allocation_at(address))
        snprintf(text, sizeof text, "access at allocation %u + %zu, which is not a multiple of %zu bytes",
                 allocation->number, size_t(address - allocation->start), alignment);
    else
        snprintf(text, sizeof text, "access at %#zx, which is not a multiple of %zu bytes", size_t(address), alignment);
    finding("misaligned", CODE, text);
    abandon_launch();
}
}
