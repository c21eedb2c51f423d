// Device memory: one reserved range of addresses from which allocations are cut at multiples of 256 bytes, as CUDA
// promises, each between red zones that belong to nobody.
//
// One range rather than malloc, because the checker has to find what belongs to an address for every access a kernel
// makes: a table with one entry per 256 bytes answers that, and shadow memory is an array beside it. Fresh memory holds
// NaN bytes. Addresses are reused late while checking, so that a use after free is found.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "runtime.h"

// Defined when the process runs under the address sanitizer (SPDFLOW_EMULATOR_ASAN=1).
extern "C" void __asan_poison_memory_region(const void *, size_t) __attribute__((weak));
extern "C" void __asan_unpoison_memory_region(const void *, size_t) __attribute__((weak));

namespace emulator {
namespace {

constexpr size_t DEFAULT_MEMORY = size_t(8) << 30;

struct Arena {
    uintptr_t start = 0;
    size_t size = 0;
    size_t limit = 0; // bytes that allocations may hold together
    size_t used = 0;
    uint32_t *owner = nullptr; // see DeviceRange
    std::vector<Allocation> allocations;
    std::vector<uint32_t> free_slots;
    std::map<size_t, size_t> free_ranges; // offset -> size, never adjacent
    size_t cursor = 0;                    // where the search for a free range begins while checking
    uint32_t count = 0;
};

void *reserve(size_t size) {
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

Arena *make_arena() {
    Arena *arena = new Arena;
    const char *limit = getenv("SPDFLOW_EMULATOR_MEMORY");
    arena->limit = limit && *limit ? strtoull(limit, nullptr, 10) : DEFAULT_MEMORY;
    // Twice the limit leaves room for red zones, for late reuse and for holes.
    size_t size = (arena->limit * 2 + (size_t(256) << 20)) / GRANULE * GRANULE;
    void *memory = nullptr;
    while (!(memory = reserve(size)) && size > (size_t(64) << 20)) size = size / 2 / GRANULE * GRANULE;
    if (!memory) {
        fprintf(stderr, "emulator: cannot reserve device memory\n");
        abort();
    }
    arena->start = reinterpret_cast<uintptr_t>(memory);
    arena->size = size;
    arena->owner = static_cast<uint32_t *>(reserve(size / GRANULE * sizeof(uint32_t)));
    device_range.written = checking() ? static_cast<uint8_t *>(reserve(size)) : nullptr;
    if (!arena->owner || (checking() && !device_range.written)) {
        fprintf(stderr, "emulator: cannot reserve memory beside %zu bytes of device memory\n", size);
        abort();
    }
    arena->free_ranges[0] = size;
    device_range.start = arena->start;
    device_range.size = size;
    device_range.owner = arena->owner;
    return arena;
}

Arena &arena() {
    static Arena *the_arena = make_arena(); // never destroyed: threads may outlive static destructors
    return *the_arena;
}

// Takes `size` bytes from the free ranges; false when no range is large enough.
bool take(Arena &a, size_t size, size_t *offset) {
    auto fits = [&](std::map<size_t, size_t>::iterator range) { return range->second >= size; };
    auto begin = checking() ? a.free_ranges.lower_bound(a.cursor) : a.free_ranges.begin();
    auto found = a.free_ranges.end();
    for (auto range = begin; range != a.free_ranges.end() && found == a.free_ranges.end(); ++range)
        if (fits(range)) found = range;
    for (auto range = a.free_ranges.begin(); range != begin && found == a.free_ranges.end(); ++range)
        if (fits(range)) found = range;
    if (found == a.free_ranges.end()) return false;
    *offset = found->first;
    size_t rest = found->second - size;
    a.free_ranges.erase(found);
    if (rest) a.free_ranges[*offset + size] = rest;
    a.cursor = *offset + size;
    return true;
}

void give(Arena &a, size_t offset, size_t size) {
    auto next = a.free_ranges.lower_bound(offset);
    if (next != a.free_ranges.end() && next->first == offset + size) {
        size += next->second;
        next = a.free_ranges.erase(next);
    }
    if (next != a.free_ranges.begin()) {
        auto previous = std::prev(next);
        if (previous->first + previous->second == offset) {
            previous->second += size;
            return;
        }
    }
    a.free_ranges[offset] = size;
}

// An allocation takes its bytes, rounded up, and a red zone before and after; at least 256 bytes, so that the address
// of an empty one is nobody else's.
size_t body_bytes(size_t size) { return (size + GRANULE - 1) / GRANULE * GRANULE + (size == 0 ? GRANULE : 0); }
size_t footprint(size_t size) { return GRANULE + body_bytes(size) + GRANULE; }

constexpr unsigned char RED = 0xc3;

// Red zones are also looked at when memory is freed, which finds writes outside when nothing is checked.
bool red_zones_intact(const Allocation &allocation) {
    const auto *body = reinterpret_cast<const unsigned char *>(allocation.start);
    for (size_t i = 1; i <= GRANULE; i++)
        if (body[-ptrdiff_t(i)] != RED) return false;
    const size_t end = body_bytes(allocation.size) + GRANULE;
    for (size_t i = allocation.size; i < end; i++)
        if (body[i] != RED) return false;
    return true;
}

} // namespace

DeviceRange device_range;

bool checking() {
    static const bool on = [] {
        const char *value = getenv("SPDFLOW_EMULATOR_CHECK");
        return value && *value && strcmp(value, "0") != 0;
    }();
    return on;
}

Result allocate(size_t size, uintptr_t *address) {
    Arena &a = arena();
    size_t offset;
    if (size > a.limit || a.used + size > a.limit || !take(a, footprint(size), &offset)) return OUT_OF_MEMORY;
    uintptr_t start = a.start + offset + GRANULE;
    uint32_t slot;
    if (a.free_slots.empty()) {
        slot = uint32_t(a.allocations.size());
        a.allocations.emplace_back();
        device_range.allocations = a.allocations.data();
    } else {
        slot = a.free_slots.back();
        a.free_slots.pop_back();
    }
    a.allocations[slot] = {start, size, ++a.count};
    uint32_t *owner = a.owner + (offset + GRANULE) / GRANULE;
    for (size_t i = 0; i < body_bytes(size) / GRANULE; i++) owner[i] = slot + 1;
    if (__asan_unpoison_memory_region)
        __asan_unpoison_memory_region(reinterpret_cast<void *>(a.start + offset), footprint(size));
    memset(reinterpret_cast<void *>(a.start + offset), RED, GRANULE);
    memset(reinterpret_cast<void *>(start + size), RED, body_bytes(size) - size + GRANULE);
    if (__asan_unpoison_memory_region) {
        __asan_poison_memory_region(reinterpret_cast<void *>(a.start + offset), footprint(size));
        __asan_unpoison_memory_region(reinterpret_cast<void *>(start), size);
    }
    memset(reinterpret_cast<void *>(start), 0xff, size);
    if (checking()) memset(written_flags(start), 0, body_bytes(size));
    a.used += size;
    *address = start;
    return SUCCESS;
}

Result release(uintptr_t address) {
    if (address == 0) return SUCCESS;
    Arena &a = arena();
    const Allocation *allocation = allocation_at(address);
    if (!allocation && in_arena(address)) { // an empty allocation owns a granule but no byte
        uint32_t slot = a.owner[(address - a.start) / GRANULE];
        if (slot) allocation = &a.allocations[slot - 1];
    }
    if (!allocation || allocation->start != address) {
        fprintf(stderr, "emulator: free of %#llx, which is not the start of a live allocation (freed twice?)\n",
                (unsigned long long)address);
        return INVALID_VALUE;
    }
    size_t offset = address - a.start - GRANULE, size = allocation->size;
    if (__asan_unpoison_memory_region)
        __asan_unpoison_memory_region(reinterpret_cast<void *>(a.start + offset), footprint(size));
    const bool intact = red_zones_intact(*allocation);
    if (!intact)
        fprintf(stderr,
                "emulator: something was written outside of allocation %u (%zu bytes); SPDFLOW_EMULATOR_CHECK=1 "
                "says where\n",
                allocation->number, size);
    uint32_t slot = a.owner[(offset + GRANULE) / GRANULE];
    memset(a.owner + (offset + GRANULE) / GRANULE, 0, body_bytes(size) / GRANULE * sizeof(uint32_t));
    if (__asan_poison_memory_region)
        __asan_poison_memory_region(reinterpret_cast<void *>(a.start + offset), footprint(size));
    if (size >= (1 << 20)) { // give the pages of large buffers back to the host
        uintptr_t from = (address + 4095) & ~uintptr_t(4095), to = (address + size) & ~uintptr_t(4095);
        madvise(reinterpret_cast<void *>(from), to - from, MADV_DONTNEED);
    }
    a.free_slots.push_back(slot - 1);
    a.used -= size;
    give(a, offset, footprint(size));
    return intact ? SUCCESS : ILLEGAL_ADDRESS;
}

void memory_info(size_t *free_bytes, size_t *total_bytes) {
    Arena &a = arena();
    *free_bytes = a.limit - a.used;
    *total_bytes = a.limit;
}

uint32_t nearest_allocation(uintptr_t address, ptrdiff_t *offset) {
    Arena &a = arena();
    if (address - a.start >= a.size) return 0;
    // Past an end is likelier than before a start, so look down first, then up.
    size_t granule = (address - a.start) / GRANULE, last = a.size / GRANULE - 1;
    for (size_t distance = 0; distance < 4096; distance++) {
        for (int up = 0; up < 2; up++) {
            if (up ? granule + distance > last : distance > granule) continue;
            uint32_t slot = a.owner[up ? granule + distance : granule - distance];
            if (!slot) continue;
            *offset = ptrdiff_t(address - a.allocations[slot - 1].start);
            return a.allocations[slot - 1].number;
        }
    }
    return 0;
}

bool check_range(uintptr_t address, size_t size, const char *who) {
    if (size == 0) return true;
    const Allocation *allocation = allocation_at(address);
    if (allocation && size <= allocation->size - (address - allocation->start)) return true;
    if (allocation)
        fprintf(stderr, "emulator: %s of %zu bytes at allocation %u + %zu, which has %zu bytes\n", who, size,
                allocation->number, size_t(address - allocation->start), allocation->size);
    else
        fprintf(stderr, "emulator: %s of %zu bytes at %#llx, which is in no live allocation\n", who, size,
                (unsigned long long)address);
    return false;
}

} // namespace emulator
