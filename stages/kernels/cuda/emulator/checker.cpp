// Watches every access of a kernel to device and shared memory (SPDFLOW_EMULATOR_CHECK=1).
//
// Kernels are then compiled with -fsanitize=thread,bounds,alignment, whose hooks are implemented in hooks.cpp instead
// of by the sanitizers' own libraries; they end in `access`. Shadow memory holds for each 4 bytes who wrote and who
// read last, with the number of block barriers and warp barriers passed before. Two accesses of one launch to the same
// bytes, one a write, race unless something orders them: a barrier between threads of a block, nothing between blocks.
#include "checker.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

namespace emulator {
namespace {

constexpr unsigned MOST_FINDINGS = 20;

// Who accessed a cell last.
struct Access {
    uint32_t launch; // 0 = nobody
    uint32_t block, epoch;
    uint16_t warp_epoch, thread;
};

struct Cell {
    Access write, read;
    uint8_t write_mask, read_mask; // which of the 4 bytes
    bool write_atomic, read_atomic;
    bool many_threads, many_warps, many_blocks; // of those that read since `read` was new
};

Cell *device_cells = nullptr; // zeros are a cell that nobody accessed
std::vector<Cell> shared_cells;
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

std::string thread_name(uint32_t block, uint32_t thread) {
    const dim3 &grid = spdflow_emulator_current.grid_dim, &dim = spdflow_emulator_current.block_dim;
    return text("block (%u,%u,%u) thread (%u,%u,%u)", block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y,
                thread % dim.x, thread / dim.x % dim.y, thread / dim.x / dim.y);
}

bool is_builtin(uintptr_t address) {
    return address - reinterpret_cast<uintptr_t>(&spdflow_emulator_current) < sizeof spdflow_emulator_current;
}

uint16_t running_warp_epoch() { return uint16_t(running.warp_epochs[running.thread / 32]); }

const char *verb(bool write, bool atomic) { return atomic ? "atomic access" : write ? "write" : "read"; }

// Whether an earlier access is ordered before the one that happens now.
bool ordered(const Access &before, bool shared, bool many_blocks, bool many_threads, bool many_warps) {
    if (before.launch != running.launch) return true;
    if (shared && before.block != running.block) return true; // another block's memory
    if (many_blocks || before.block != running.block) return false;
    if (before.epoch != running.epoch) return true;
    if (!many_threads && before.thread == running.thread) return true;
    return !many_warps && before.thread / 32 == running.thread / 32 && before.warp_epoch != running_warp_epoch();
}

void race(const Access &before, bool before_write, bool before_atomic, const Memory &memory, bool write, bool atomic,
          uintptr_t code) {
    bool same_block = before.block == running.block;
    finding("race", code,
            std::string(verb(write, atomic)) + " at " + describe(memory) + " and " + verb(before_write, before_atomic) +
                " by " + thread_name(before.block, before.thread) +
                (same_block ? " with no barrier between them" : ", and blocks of a launch have no order"));
}

void check_cell(Cell &cell, uint8_t mask, const Memory &memory, bool write, bool atomic, uintptr_t code) {
    bool shared = memory.kind != Memory::DEVICE;
    if (cell.write_mask & mask && !(cell.write_atomic && atomic) && !ordered(cell.write, shared, false, false, false))
        race(cell.write, true, cell.write_atomic, memory, write, atomic, code);
    if (write && cell.read_mask & mask && !(cell.read_atomic && atomic) &&
        !ordered(cell.read, shared, cell.many_blocks, cell.many_threads, cell.many_warps))
        race(cell.read, false, cell.read_atomic, memory, write, atomic, code);

    const Access now{running.launch, running.block, running.epoch, running_warp_epoch(), uint16_t(running.thread)};
    if (write) {
        cell.write = now;
        cell.write_mask = mask;
        cell.write_atomic = atomic;
        return;
    }
    const Access &before = cell.read;
    bool current = before.launch == now.launch && !(shared && before.block != now.block);
    // Readers of an earlier epoch of this block are ordered before whatever comes, so they can be forgotten; readers of
    // other blocks cannot.
    bool other_blocks = current && (cell.many_blocks || before.block != now.block);
    bool same_epoch = current && before.block == now.block && before.epoch == now.epoch;
    cell.many_blocks = other_blocks;
    cell.many_threads = same_epoch && (cell.many_threads || before.thread != now.thread);
    cell.many_warps = same_epoch && (cell.many_warps || before.thread / 32 != now.thread / 32);
    cell.read_atomic = atomic && (!current || cell.read_atomic);
    cell.read_mask = current ? cell.read_mask | mask : mask;
    cell.read = now;
}

void check_cells(Cell *cells, size_t offset, size_t size, const Memory &memory, bool write, bool atomic,
                 uintptr_t code) {
    for (size_t at = offset & ~size_t(3); at < offset + size; at += 4) {
        size_t from = at < offset ? offset - at : 0, to = at + 4 > offset + size ? offset + size - at : 4;
        uint8_t mask = uint8_t(((1u << to) - 1) & ~((1u << from) - 1));
        check_cell(cells[at / 4], mask, memory, write, atomic, code);
    }
}

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

void reserve_cells() {
    void *cells = mmap(nullptr, (device_range.size / 4 + 1) * sizeof(Cell), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cells == MAP_FAILED) {
        fprintf(stderr, "emulator: cannot reserve shadow memory (SPDFLOW_EMULATOR_MEMORY=BYTES makes it smaller)\n");
        abort();
    }
    device_cells = static_cast<Cell *>(cells);
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
    if (!device_cells) reserve_cells();
    check_written(written_flags(address), size, memory, write, read, code);
    check_cells(device_cells, address - device_range.start, size, memory, write, atomic, code);
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
    if (shared_cells.size() < bytes / 4 + 2) shared_cells.resize(bytes / 4 + 2);
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
    check_cells(shared_cells.data(), place, size, memory, write, atomic, code);
}

} // namespace emulator
