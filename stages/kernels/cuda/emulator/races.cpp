// Finds accesses that race (SPDFLOW_EMULATOR_CHECK=1). Called by checker.cpp for every access of a kernel.
//
// Shadow memory holds for each 4 bytes who wrote and who read last, with the number of block barriers and of warp
// barriers passed before. Two accesses of one launch to the same bytes, one of them a write and not both atomic, race
// unless something orders them: a barrier between threads of a block, nothing between blocks. A word of which a kernel
// accesses single bytes has shadow memory for each byte from then on.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "checker.h"

namespace emulator {
namespace {

// The accesses of one kind that the next one may race with: the last, and whether those before it that no barrier
// orders were by others. Zeros are none.
struct Past {
    uint32_t launch; // 0 = none
    uint32_t block, epoch;
    uint16_t warp_epoch, thread;
    bool atomic; // all of them
    bool many_threads, many_warps, many_blocks;
};

struct Cell {
    Past write, read;
};

struct Word {
    Cell cell;
    uint32_t split; // the launch in which bytes have cells of their own
};

// Shadow memory of a range: device memory, or the shared memory of a block.
struct Shadow {
    Word *words;
    Cell *bytes;
    size_t size;
} device, shared;

void *reserve(size_t size) {
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "emulator: cannot reserve shadow memory (SPDFLOW_EMULATOR_MEMORY=BYTES makes it smaller)\n");
        abort();
    }
    return memory;
}

// One access; `now.atomic` belongs to it.
struct Event {
    Past now;
    const Memory &memory;
    bool write;
    uintptr_t code;
};

bool is_shared(const Event &event) { return event.memory.kind == Memory::SHARED; }

// Whether accesses belong to this launch and, of shared memory, to this block, whose memory nobody else has.
bool counts(const Past &past, const Event &event) {
    return past.launch == event.now.launch && (!is_shared(event) || past.block == event.now.block);
}

// Whether a barrier orders all of them before what happens now.
bool passed(const Past &past, const Past &now) {
    if (past.many_blocks || past.block != now.block) return false;
    if (past.epoch != now.epoch) return true;
    return !past.many_warps && past.thread / 32 == now.thread / 32 && past.warp_epoch != now.warp_epoch;
}

bool races(const Past &past, const Event &event) {
    if (!counts(past, event) || (past.atomic && event.now.atomic) || passed(past, event.now)) return false;
    return past.many_blocks || past.many_threads || past.block != event.now.block || past.thread != event.now.thread;
}

void report(const Past &past, bool past_write, const Event &event) {
    auto verb = [](bool write, bool atomic) { return atomic ? "atomic access" : write ? "write" : "read"; };
    const bool same_block = past.block == event.now.block && !past.many_blocks;
    finding("race", event.code,
            std::string(verb(event.write, event.now.atomic)) + " at " + describe(event.memory) + " and " +
                verb(past_write, past.atomic) + " by " + thread_name(past.block, past.thread) +
                (past.many_threads || past.many_blocks ? " and others" : "") +
                (same_block ? " with no barrier between them" : ", and blocks of a launch have no order"));
}

void remember(Past &past, const Event &event) {
    const Past before = past;
    past = event.now;
    // What a barrier orders before this access is so before everything that comes after it as well.
    if (!counts(before, event) || passed(before, event.now)) return;
    past.atomic = before.atomic && event.now.atomic;
    past.many_blocks = before.many_blocks || before.block != past.block;
    past.many_threads = before.many_threads || before.thread != past.thread;
    past.many_warps = before.many_warps || before.thread / 32 != past.thread / 32;
}

void check_cell(Cell &cell, const Event &event) {
    if (races(cell.write, event)) report(cell.write, true, event);
    if (event.write && races(cell.read, event)) report(cell.read, false, event);
    remember(event.write ? cell.write : cell.read, event);
}

void check_bytes(Shadow &shadow, size_t word, size_t from, size_t to, const Event &event) {
    if (!shadow.bytes) shadow.bytes = static_cast<Cell *>(reserve(shadow.size * sizeof(Cell)));
    Cell *cells = shadow.bytes + word * 4;
    if (shadow.words[word].split != event.now.launch) {
        for (int i = 0; i < 4; i++) cells[i] = shadow.words[word].cell;
        shadow.words[word].split = event.now.launch;
    }
    for (size_t i = from; i < to; i++) check_cell(cells[i], event);
}

} // namespace

void check_order(const Memory &memory, size_t place, size_t size, bool write, bool atomic, uintptr_t code) {
    Shadow &shadow = memory.kind == Memory::SHARED ? shared : device;
    if (!shadow.words) {
        shadow.size = memory.kind == Memory::SHARED ? MOST_SHADOWED_SHARED : device_range.size;
        shadow.words = static_cast<Word *>(reserve(shadow.size / 4 * sizeof(Word)));
    }
    const uint16_t warp_epoch = uint16_t(running.warp_epochs[running.thread / 32]);
    const Event event{{running.launch, running.block, running.epoch, warp_epoch, uint16_t(running.thread), atomic,
                       false, false, false},
                      memory,
                      write,
                      code};
    for (size_t word = place / 4; word * 4 < place + size; word++) {
        const size_t from = word * 4 < place ? place - word * 4 : 0;
        const size_t to = word * 4 + 4 > place + size ? place + size - word * 4 : 4;
        if (to - from == 4 && shadow.words[word].split != running.launch)
            check_cell(shadow.words[word].cell, event);
        else
            check_bytes(shadow, word, from, to, event);
    }
}

} // namespace emulator
