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
    uint32_t launch = 0; // 0 = nobody
    uint32_t block = 0;
    uint32_t epoch = 0;
    uint16_t warp_epoch = 0;
    uint16_t thread = 0;
};

struct Cell {
    Access write, read;
    uint8_t write_mask = 0, read_mask = 0; // which of the 4 bytes
    bool write_atomic = false, read_atomic = false;
    bool many_threads = false, many_warps = false, many_blocks = false; // of the readers since `read` began
};

Cell *device_cells = nullptr;
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

const char *verb(bool write, bool atomic) { return atomic ? "atomic access" : write ? "write" : "read"; }

// Whether an earlier access is ordered before the one that happens now.
bool ordered(const Access &before, bool shared, bool many_blocks, bool many_threads, bool many_warps) {
    if (before.launch != running_launch()) return true;
    uint32_t block = running_block(), thread = running_thread();
    if (shared && before.block != block) return true; // another block's memory
    if (many_blocks || before.block != block) return false;
    if (before.epoch != barrier_epoch()) return true;
    if (!many_threads && before.thread == thread) return true;
    return !many_warps && before.thread / 32 == thread / 32 && before.warp_epoch != uint16_t(warp_epoch());
}

void race(const Access &before, bool before_write, bool before_atomic, const Memory &memory, bool write, bool atomic,
          uintptr_t code) {
    bool same_block = before.block == running_block();
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

    Access now;
    now.launch = running_launch();
    now.block = running_block();
    now.epoch = barrier_epoch();
    now.warp_epoch = uint16_t(warp_epoch());
    now.thread = uint16_t(running_thread());
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
        for (size_t i = 0; i < size; i++) {
            if (written[i]) continue;
            finding("uninitialised", code, "read of " + describe(memory) + ", which was never written");
            break;
        }
        if (!write) return;
    }
    memset(written, 1, size);
}

} // namespace

std::string describe(const Memory &memory) {
    if (memory.kind == Memory::DEVICE)
        return text("allocation %u (%zu bytes) + %zd", memory.allocation, memory.size, memory.offset);
    return text("shared array `%s` (%zu bytes) + %zd", memory.name, memory.size, memory.offset);
}

void finding(const char *kind, uintptr_t code, const std::string &what) {
    const Kernel *kernel = running_kernel();
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
    const Module *module = running_kernel()->module;
    size_t bytes = module->shared_end - module->shared_start + dynamic_shared_size();
    shared_written.assign(bytes, 0);
    if (shared_cells.size() < bytes / 4 + 2) shared_cells.resize(bytes / 4 + 2);
}

void access(uintptr_t address, size_t size, unsigned access_kind, uintptr_t code) {
    if (on_fiber_stack(address)) return;
    const Kernel *kernel = running_kernel();
    if (!kernel) return;
    bool write = access_kind & WRITE, read = access_kind & READ, atomic = access_kind & ATOMIC;
    if (in_arena(address)) {
        const Allocation *allocation = allocation_at(address);
        if (!allocation || size > allocation->size - (address - allocation->start)) {
            ptrdiff_t offset = 0;
            uint32_t number = nearest_allocation(address, &offset);
            finding("out of bounds", code,
                    text("%s of %zu bytes", verb(write, atomic), size) +
                        (allocation ? text(" at allocation %u + %zu, which has %zu bytes", allocation->number,
                                           size_t(address - allocation->start), allocation->size)
                         : number   ? text(" at allocation %u %+zd, outside of it", number, offset)
                                    : text(" at device address %#zx, where nothing is allocated", size_t(address))));
            abandon_launch();
        }
        Memory memory{Memory::DEVICE, allocation->number, allocation->size, ptrdiff_t(address - allocation->start),
                      nullptr};
        if (!device_cells) {
            void *cells = mmap(nullptr, (arena_size() / 4 + 1) * sizeof(Cell), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (cells == MAP_FAILED) {
                fprintf(stderr,
                        "emulator: cannot reserve shadow memory (SPDFLOW_EMULATOR_MEMORY=BYTES makes it smaller)\n");
                abort();
            }
            device_cells = static_cast<Cell *>(cells);
        }
        check_written(written_flags(address), size, memory, write, read, code);
        check_cells(device_cells, arena_offset(address), size, memory, write, atomic, code);
        return;
    }
    const Module *module = kernel->module;
    size_t section = module->shared_end - module->shared_start;
    Memory memory{Memory::SHARED, 0, 0, 0, nullptr};
    size_t offset;
    if (address - module->shared_start < section) {
        for (const SharedArray &array : module->shared) {
            if (address - array.start >= array.size) continue;
            memory.name = array.name.c_str();
            memory.size = array.size;
            memory.offset = ptrdiff_t(address - array.start);
            if (array.red_zone) {
                memory.size -= 2 * SHARED_RED_ZONE;
                memory.offset -= ptrdiff_t(SHARED_RED_ZONE);
            }
        }
        offset = address - module->shared_start;
    } else if (address - dynamic_shared_start() < dynamic_shared_size()) {
        memory.name = "dynamic";
        memory.size = dynamic_shared_size();
        memory.offset = ptrdiff_t(address - dynamic_shared_start());
        offset = section + size_t(memory.offset);
    } else if (address - module->start < module->end - module->start || is_builtin(address)) {
        return; // constants and variables of the module, the built-in variables
    } else {
        finding("out of bounds", code,
                text("%s of %zu bytes at %#zx, which is neither device nor shared memory", verb(write, atomic), size,
                     size_t(address)));
        abandon_launch();
    }
    if (memory.offset < 0 || size_t(memory.offset) + size > memory.size) {
        finding("out of bounds", code,
                text("%s of %zu bytes", verb(write, atomic), size) +
                    (!memory.name ? " between shared arrays" : " at " + describe(memory)));
        abandon_launch();
    }
    check_written(shared_written.data() + offset, size, memory, write, read, code);
    check_cells(shared_cells.data(), offset, size, memory, write, atomic, code);
}

} // namespace emulator
