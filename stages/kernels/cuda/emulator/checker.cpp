// Looks at every access to memory that a kernel makes.
//
// Kernels are compiled with the compiler's instrumentation for threads, which calls a function before each access; the
// functions are these. Found and reported: accesses outside an allocation or a shared array, 16-byte accesses that are not
// aligned (a device faults), reads of memory that nobody wrote, and races: two threads of a block between the same two
// barriers, or two blocks of a launch, at the same four bytes, one of them writing. A finding ends the launch.
#include "machine.h"

namespace {
struct Shared {
    uintptr_t base;
    size_t bytes;
    std::vector<Cell> cells;
};

thread_local std::vector<Shared> shared_arrays;
// The checker's own accesses are not looked at.
thread_local bool is_checking = false;

[[noreturn]] void report(const char *what, const char *where, size_t offset) {
    machine::say(what);
    fprintf(stderr, ", thread %u, at byte %zd of %s\n", machine::state.current->number, ssize_t(offset), where);
    is_checking = false;
    machine::fail();
}

void check(Cell &cell, bool writes, unsigned block, uint64_t moment, const char *where, size_t offset) {
    unsigned thread = machine::state.current->number, epoch = machine::state.epoch;
    if (cell.written_in == moment) {
        if (cell.writer_block != block) report("two blocks race (one wrote before)", where, offset);
        if (cell.writer_epoch == epoch && cell.writer != thread)
            report(writes ? "two threads race (both write)" : "two threads race (read after write)", where, offset);
    }
    if (writes) {
        if (cell.read_in == moment) {
            if (cell.reader_block != block) report("two blocks race (one read before)", where, offset);
            if (cell.reader_epoch == epoch && cell.reader != thread)
                report("two threads race (write after read)", where, offset);
        }
        cell.written_in = moment, cell.writer_block = block, cell.writer_epoch = epoch, cell.writer = thread;
        cell.known = true;
        return;
    }
    if (!cell.known) report("memory is read that nobody wrote", where, offset);
    if (cell.read_in != moment) {
        cell.read_in = moment, cell.reader_block = block, cell.reader_epoch = epoch, cell.reader = thread;
    } else {
        // More than one reader: no later writer is the same one.
        if (cell.reader_block != block) cell.reader_block = machine::EVERYBODY;
        if (cell.reader_epoch != epoch)
            cell.reader_epoch = epoch, cell.reader = thread;
        else if (cell.reader != thread)
            cell.reader = machine::EVERYBODY;
    }
}

void access(void *address, size_t bytes, bool writes) {
    using machine::state;
    if (is_checking || !state.current || !state.alive) return;
    uintptr_t at = reinterpret_cast<uintptr_t>(address), stack = reinterpret_cast<uintptr_t>(state.current->stack.get());
    if (at >= stack && at < stack + machine::STACK) return;
    is_checking = true;
    for (Shared &array : shared_arrays) {
        // Just outside counts as meant for it.
        if (at + 64 < array.base || at >= array.base + array.bytes + 64) continue;
        if (at >= array.base && at + bytes <= array.base + array.bytes) {
            size_t offset = at - array.base;
            if (bytes == 16 && at % 16) report("16 bytes at once are not aligned", "a shared array", offset);
            for (size_t i = 0; i < bytes; i += 4)
                check(array.cells[(offset + i) / 4], writes, 0, state.block_number, "a shared array", offset + i);
            is_checking = false;
            return;
        }
    }
    if (Allocation *memory = state.services->near_by(at)) {
        size_t offset = at - memory->base;
        if (at < memory->base || at + bytes > memory->base + memory->bytes)
            report(writes ? "a write outside of memory" : "a read outside of memory", "an allocation", offset);
        if (bytes == 16 && at % 16) report("16 bytes at once are not aligned", "an allocation", offset);
        const dim3 &index = state.block_index, &grid = state.grid;
        unsigned block = index.x + grid.x * (index.y + grid.y * index.z);
        for (size_t i = 0; i < bytes; i += 4)
            check(memory->cells[(offset + i) / 4], writes, block, state.launch_number, "an allocation", offset + i);
        is_checking = false;
        return;
    }
    for (Shared &array : shared_arrays)
        if (at + 64 >= array.base && at < array.base + array.bytes + 64)
            report("an access outside of shared memory", "a shared array", at - array.base);
    is_checking = false; // constants, and what the compiler keeps for itself
}
} // namespace

extern "C" {
void checker_new_shared(void *memory, size_t bytes) {
    is_checking = true;
    uintptr_t base = reinterpret_cast<uintptr_t>(memory);
    bool is_known = false;
    for (Shared &array : shared_arrays)
        if (array.base == base) array.cells.assign((bytes + 3) / 4, Cell{}), is_known = true;
    if (!is_known) shared_arrays.push_back({base, bytes, std::vector<Cell>((bytes + 3) / 4)});
    is_checking = false;
}

#define ACCESSES(size) \
    void __tsan_read##size(void *address) { access(address, size, false); } \
    void __tsan_write##size(void *address) { access(address, size, true); } \
    void __tsan_unaligned_read##size(void *address) { access(address, size, false); } \
    void __tsan_unaligned_write##size(void *address) { access(address, size, true); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void *address, size_t bytes) { access(address, bytes, false); }
void __tsan_write_range(void *address, size_t bytes) { access(address, bytes, true); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}
