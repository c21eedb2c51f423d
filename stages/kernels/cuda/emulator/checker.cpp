// Watches every access of a kernel to device and shared memory (SPDFLOW_EMULATOR_CHECK=1).
//
// Kernels are then compiled with -fsanitize=thread,bounds,alignment, whose hooks are implemented in hooks.cpp instead
// of by the sanitizers' own libraries; they end in `access`, which looks where the address lies and whether what is
// read was ever written. races.cpp looks at the order of accesses. What was found is reported here too.
#include "checker.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

namespace emulator {
namespace {

constexpr unsigned MOST_FINDINGS = 20;

std::vector<uint8_t> shared_written; // of the module's section, then of dynamic shared memory
std::set<std::string> reported;      // in this launch
unsigned count = 0;

std::string text(const char *format, ...) __attribute__((format(printf, 1, 2)));
std::string text(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return line;
}

bool is_builtin(uintptr_t address) {
    return address - reinterpret_cast<uintptr_t>(&spdflow_emulator_current) < sizeof spdflow_emulator_current;
}

const char *verb(bool write, bool atomic) { return atomic ? "atomic access" : write ? "write" : "read"; }

void check_written(uint8_t *written, size_t size, const Memory &memory, bool write, bool read, uintptr_t code) {
    if (read) {
        uint8_t all = 1;
        for (size_t i = 0; i < size; i++) all &= written[i];
        if (!all) finding("uninitialised", code, "read of " + describe(memory) + ", which was never written");
        if (!write) return;
    }
    if (size == 4)
        memset(written, 1, 4);
    else
        memset(written, 1, size);
}

void check_device(uintptr_t address, size_t size, bool write, bool read, bool atomic, uintptr_t code) {
    const Allocation *allocation = allocation_at(address);
    const size_t offset = allocation ? address - allocation->start : 0;
    if (!allocation || size > allocation->size - offset) {
        ptrdiff_t distance = 0;
        const uint32_t number = nearest_allocation(address, &distance);
        const std::string what = text("%s of %zu bytes", verb(write, atomic), size);
        if (allocation)
            finding("out of bounds", code,
                    what + text(" at allocation %u + %zu, which has %zu bytes", allocation->number, offset,
                                allocation->size));
        else if (number)
            finding("out of bounds", code, what + text(" at allocation %u %+zd, outside of it", number, distance));
        else
            finding("out of bounds", code, what + text(" at device address %#zx, which is nobody's", size_t(address)));
        abandon_launch();
    }
    const Memory memory{Memory::DEVICE, allocation->number, allocation->size, ptrdiff_t(offset), nullptr};
    check_written(written_flags(address), size, memory, write, read, code);
    check_order(memory, address - device_range.start, size, write, atomic, code);
}

// Finds the shared array of an address; false when it is no shared memory. `place` is where its shadow is.
bool find_shared(uintptr_t address, Memory *memory, size_t *place) {
    const Module *module = running.kernel->module;
    const size_t section = module->shared_end - module->shared_start;
    *memory = {Memory::SHARED, 0, 0, 0, nullptr};
    if (address - running.dynamic_shared < running.dynamic_shared_size) {
        memory->name = "dynamic";
        memory->size = running.dynamic_shared_size;
        memory->offset = ptrdiff_t(address - running.dynamic_shared);
        *place = section + size_t(memory->offset);
        return true;
    }
    if (address - module->shared_start >= section) return false;
    *place = address - module->shared_start;
    for (const SharedArray &array : module->shared) {
        if (address - array.start >= array.size) continue;
        const size_t red_zone = array.red_zone ? SHARED_RED_ZONE : 0;
        memory->name = array.name.c_str();
        memory->size = array.size - 2 * red_zone;
        memory->offset = ptrdiff_t(address - array.start) - ptrdiff_t(red_zone);
        break;
    }
    return true;
}

} // namespace

std::string thread_name(uint32_t block, uint32_t thread) {
    const dim3 &grid = spdflow_emulator_current.grid_dim, &dim = spdflow_emulator_current.block_dim;
    return text("block (%u,%u,%u) thread (%u,%u,%u)", block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y,
                thread % dim.x, thread / dim.x % dim.y, thread / dim.x / dim.y);
}

std::string describe(const Memory &memory) {
    if (memory.kind == Memory::DEVICE)
        return text("allocation %u (%zu bytes) + %zd", memory.allocation, memory.size, memory.offset);
    return text("shared array `%s` (%zu bytes) + %zd", memory.name, memory.size, memory.offset);
}

void finding(const char *kind, uintptr_t code, const std::string &what) {
    const Kernel *kernel = running.kernel;
    // One line for each wrong statement, not one for each thread that runs it.
    std::string place = code ? source_line(kernel->module, code) : "";
    if (!reported.insert(kind + (place.empty() ? what : place)).second) return;
    if (++count > MOST_FINDINGS) return;
    const spdflow_emulator_builtins &now = spdflow_emulator_current;
    fprintf(stderr, "emulator: %s: kernel `%s`, block (%u,%u,%u), thread (%u,%u,%u): %s%s\n", kind, kernel->entry->name,
            now.block_index.x, now.block_index.y, now.block_index.z, now.thread_index.x, now.thread_index.y,
            now.thread_index.z, what.c_str(), place.c_str());
}

unsigned findings() { return count; }

void start_findings() {
    reported.clear();
    count = 0;
}

void block_started() {
    const Module *module = running.kernel->module;
    size_t bytes = module->shared_end - module->shared_start + running.dynamic_shared_size;
    shared_written.assign(bytes, 0);
}

void access(uintptr_t address, size_t size, unsigned access_kind, uintptr_t code) {
    if (is_builtin(address) || address - running.stacks < running.stacks_size || !running.kernel) return;
    const bool write = access_kind & WRITE, read = access_kind & READ, atomic = access_kind & ATOMIC;
    if (in_arena(address)) return check_device(address, size, write, read, atomic, code);
    Memory memory;
    size_t place;
    if (!find_shared(address, &memory, &place)) {
        const Module *module = running.kernel->module;
        if (address - module->start < module->end - module->start) return; // its constants and variables
        finding("out of bounds", code,
                text("%s of %zu bytes at %#zx, which is neither device nor shared memory", verb(write, atomic), size,
                     size_t(address)));
        abandon_launch();
    }
    if (memory.offset < 0 || size_t(memory.offset) + size > memory.size) {
        finding("out of bounds", code,
                text("%s of %zu bytes", verb(write, atomic), size) +
                    (memory.name ? " at " + describe(memory) : " between shared arrays"));
        abandon_launch();
    }
    check_written(shared_written.data() + place, size, memory, write, read, code);
    check_order(memory, place, size, write, atomic, code);
}

} // namespace emulator
