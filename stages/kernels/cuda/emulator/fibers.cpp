// Runs a kernel: every CUDA thread is a fiber, blocks run one after another.
//
// A fiber runs threads one after the other as plain calls until one of them has to wait for others; that thread keeps
// the fiber, and the next one continues on another. A kernel without barriers therefore needs one fiber per block.
// Barriers and warp collectives are meetings: the last to arrive makes all of them runnable. When nothing is runnable
// and threads still wait, the barrier is divergent. SPDFLOW_EMULATOR_SEED permutes blocks and every choice of who runs.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "context.h"
#include "runtime.h"

extern "C" void __asan_unpoison_memory_region(const void *, size_t) __attribute__((weak));

spdflow_emulator_builtins spdflow_emulator_current;

namespace emulator {
namespace {

constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t GUARD_BYTES = 4096;
constexpr unsigned WARP = 32;

struct Fiber {
    void *stack_pointer;
    char *stack;
};

enum class State : uint8_t { READY, RUNNING, AT_BARRIER, IN_WARP, EXITED };

struct Thread {
    uint3 index;
    State state;
    Fiber *fiber; // null until it first waits
    int barrier_kind, predicate;
    int warp_kind;
    unsigned mask, source;
    uint64_t value, result;
};

struct Machine {
    Fiber fibers[MAX_THREADS + 1];
    char *stacks = nullptr;
    std::vector<Fiber *> free_fibers;
    void *scheduler = nullptr; // the host's own stack
    Fiber *running_fiber = nullptr;
    Thread threads[MAX_THREADS];
    Thread *current = nullptr;
    Thread *handed_over = nullptr; // the thread that a freshly entered fiber runs first
    unsigned count = 0, exited = 0, at_barrier = 0;
    unsigned ready[2 * MAX_THREADS]; // a queue; each thread is in it at most once
    unsigned ready_head = 0, ready_tail = 0;
    uint32_t epoch = 0, warp_epochs[MAX_THREADS / WARP];
    bool abandoned = false;
    uint64_t seed = 0, random = 1;
    Kernel *kernel = nullptr;
    void **parameters = nullptr;
    uint32_t launch = 0, block = 0;
    std::vector<char> dynamic_shared;
    uintptr_t dynamic_start = 0;
    size_t dynamic_size = 0;
};

Machine &machine() {
    static Machine *the_machine = new Machine;
    return *the_machine;
}

uint64_t draw(Machine &m) { // xorshift64
    m.random ^= m.random << 13;
    m.random ^= m.random >> 7;
    m.random ^= m.random << 17;
    return m.random;
}

void make_ready(Machine &m, Thread *thread) {
    thread->state = State::READY;
    m.ready[m.ready_tail++ % (2 * MAX_THREADS)] = unsigned(thread - m.threads);
}

Thread *next_ready(Machine &m) {
    if (m.ready_head == m.ready_tail) return nullptr;
    unsigned &first = m.ready[m.ready_head % (2 * MAX_THREADS)];
    if (m.seed) {
        unsigned &other = m.ready[(m.ready_head + draw(m) % (m.ready_tail - m.ready_head)) % (2 * MAX_THREADS)];
        std::swap(first, other);
    }
    m.ready_head++;
    return &m.threads[first];
}

void enter(Machine &m, Thread *thread) {
    thread->state = State::RUNNING;
    m.current = thread;
    spdflow_emulator_current.thread_index = thread->index;
}

void switch_to(Machine &m, Fiber *fiber) {
    Fiber *from = m.running_fiber;
    m.running_fiber = fiber;
    spdflow_emulator_switch(&from->stack_pointer, fiber->stack_pointer);
}

void to_scheduler(Machine &m) {
    Fiber *from = m.running_fiber;
    m.running_fiber = nullptr;
    spdflow_emulator_switch(&from->stack_pointer, m.scheduler);
}

void thread_exits(Machine &m);

// What every fiber runs: threads, until one is resumed that waits on a fiber of its own.
void fiber_main() {
    Machine &m = machine();
    for (;;) {
        Thread *thread = m.handed_over ? m.handed_over : next_ready(m);
        m.handed_over = nullptr;
        if (!thread) {
            m.free_fibers.push_back(m.running_fiber);
            to_scheduler(m);
        } else if (thread->fiber) {
            m.free_fibers.push_back(m.running_fiber);
            enter(m, thread);
            switch_to(m, thread->fiber);
        } else {
            enter(m, thread);
            thread->fiber = m.running_fiber;
            m.kernel->entry->run(m.parameters);
            // The thread may have waited, and is then back on the same fiber.
            thread->fiber = nullptr;
            thread_exits(m);
        }
    }
}

void prepare(Fiber *fiber) {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(fiber->stack, STACK_BYTES);
    fiber->stack_pointer = new_context(fiber->stack + STACK_BYTES, fiber_main);
}

void prepare_all(Machine &m) {
    if (!m.stacks) {
        size_t stride = STACK_BYTES + GUARD_BYTES;
        void *memory = mmap(nullptr, stride * (MAX_THREADS + 1), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            fprintf(stderr, "emulator: cannot reserve stacks\n");
            abort();
        }
        m.stacks = static_cast<char *>(memory);
        for (size_t i = 0; i <= MAX_THREADS; i++) {
            mprotect(m.stacks + i * stride, GUARD_BYTES, PROT_NONE); // an overflowing stack faults
            m.fibers[i].stack = m.stacks + i * stride + GUARD_BYTES;
        }
    }
    m.free_fibers.clear();
    for (size_t i = MAX_THREADS + 1; i-- > 0;) {
        prepare(&m.fibers[i]);
        m.free_fibers.push_back(&m.fibers[i]);
    }
}

// Gives the processor away until somebody makes this thread ready again.
void wait(Machine &m) {
    Thread *me = m.current, *next = next_ready(m);
    if (next == me) {
        enter(m, me);
    } else if (!next) {
        to_scheduler(m);
    } else if (next->fiber) {
        enter(m, next);
        switch_to(m, next->fiber);
    } else {
        Fiber *fiber = m.free_fibers.back();
        m.free_fibers.pop_back();
        m.handed_over = next;
        switch_to(m, fiber);
    }
}

std::string name_of(const Thread *thread) {
    char text[64];
    snprintf(text, sizeof text, "(%u,%u,%u)", thread->index.x, thread->index.y, thread->index.z);
    return text;
}

// Called when somebody arrives or exits: opens the barrier once every thread that lives stands at it.
void open_barrier(Machine &m) {
    if (m.at_barrier == 0 || m.at_barrier + m.exited < m.count) return;
    if (m.exited) { // hardware would pass, but the program is wrong by the CUDA guide
        finding("divergent barrier", 0,
                std::to_string(m.at_barrier) + " threads wait at a block barrier that " + std::to_string(m.exited) +
                    " threads of the block never reached because they returned");
    }
    int any = 0, all = 1, total = 0;
    for (unsigned i = 0; i < m.count; i++) {
        const Thread &thread = m.threads[i];
        if (thread.state != State::AT_BARRIER) continue;
        any |= thread.predicate != 0;
        all &= thread.predicate != 0;
        total += thread.predicate != 0;
    }
    m.at_barrier = 0;
    m.epoch++;
    for (unsigned i = 0; i < m.count; i++) {
        Thread &thread = m.threads[i];
        if (thread.state != State::AT_BARRIER) continue;
        thread.result = uint64_t(thread.barrier_kind == SPDFLOW_BARRIER_OR      ? any
                                 : thread.barrier_kind == SPDFLOW_BARRIER_AND   ? all
                                 : thread.barrier_kind == SPDFLOW_BARRIER_COUNT ? total
                                                                                : 0);
        make_ready(m, &thread);
    }
}

unsigned lane_of(const Machine &m, const Thread *thread) { return unsigned(thread - m.threads) % WARP; }

// Opens the meeting of the lanes in `mask` of the warp that begins at thread `first`, once all that live are there.
void open_warp(Machine &m, unsigned first, unsigned mask) {
    unsigned present = 0;
    int kind = -1;
    for (unsigned lane = 0; lane < WARP && first + lane < m.count; lane++) {
        const Thread &thread = m.threads[first + lane];
        if (!(mask >> lane & 1) || thread.state == State::EXITED) continue;
        if (thread.state != State::IN_WARP || thread.mask != mask) return;
        if (kind >= 0 && thread.warp_kind != kind) return;
        kind = thread.warp_kind;
        present |= 1u << lane;
    }
    if (kind < 0) return;
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < WARP; lane++)
        if (present >> lane & 1 && m.threads[first + lane].value) ballot |= 1u << lane;
    for (unsigned lane = 0; lane < WARP; lane++) {
        if (!(present >> lane & 1)) continue;
        Thread &thread = m.threads[first + lane];
        if (kind == SPDFLOW_BALLOT) {
            thread.result = ballot;
        } else if (kind == SPDFLOW_MATCH) {
            thread.result = 0;
            for (unsigned other = 0; other < WARP; other++)
                if (present >> other & 1 && m.threads[first + other].value == thread.value)
                    thread.result |= 1ull << other;
        } else if (kind == SPDFLOW_SHUFFLE) {
            thread.result = ~uint64_t(0); // NaN, what an absent lane holds is undefined
            if (thread.source < WARP && present >> thread.source & 1) {
                thread.result = m.threads[first + thread.source].value;
            } else {
                spdflow_emulator_current.thread_index = thread.index;
                finding("absent lane", 0,
                        "a shuffle reads lane " + std::to_string(thread.source) + ", which does not take part");
                spdflow_emulator_current.thread_index = m.current->index;
            }
        }
    }
    if (kind == SPDFLOW_SYNC) m.warp_epochs[first / WARP]++;
    for (unsigned lane = 0; lane < WARP; lane++)
        if (present >> lane & 1) make_ready(m, &m.threads[first + lane]);
}

void thread_exits(Machine &m) {
    m.current->state = State::EXITED;
    m.exited++;
    // Others may have waited for this thread only.
    unsigned first = unsigned(m.current - m.threads) / WARP * WARP;
    for (unsigned lane = 0; lane < WARP && first + lane < m.count; lane++)
        if (m.threads[first + lane].state == State::IN_WARP) open_warp(m, first, m.threads[first + lane].mask);
    open_barrier(m);
}

void report_deadlock(Machine &m) {
    const Thread *at_barrier = nullptr, *in_warp = nullptr;
    unsigned warps = 0;
    for (unsigned i = 0; i < m.count; i++) {
        const Thread &thread = m.threads[i];
        if (thread.state == State::AT_BARRIER && !at_barrier) at_barrier = &thread;
        if (thread.state != State::IN_WARP) continue;
        if (!in_warp) in_warp = &thread;
        warps++;
    }
    std::string what = "nobody can go on:";
    if (at_barrier)
        what +=
            " " + std::to_string(m.at_barrier) + " threads (first " + name_of(at_barrier) + ") wait at a block barrier";
    if (in_warp) {
        char mask[16];
        snprintf(mask, sizeof mask, "%08x", in_warp->mask);
        what += std::string(at_barrier ? " and " : " ") + std::to_string(warps) + " threads (first " +
                name_of(in_warp) + ") at a warp collective of lanes 0x" + mask;
    }
    if (m.exited) what += "; " + std::to_string(m.exited) + " threads have returned";
    spdflow_emulator_current.thread_index = (at_barrier ? at_barrier : in_warp)->index;
    finding("divergent barrier", 0, what);
}

// Runs the block that spdflow_emulator_current names; false when the launch has to end.
bool run_block(Machine &m) {
    const dim3 &dim = spdflow_emulator_current.block_dim;
    m.exited = m.at_barrier = m.ready_head = m.ready_tail = 0;
    m.epoch = 0;
    unsigned i = 0;
    for (unsigned z = 0; z < dim.z; z++)
        for (unsigned y = 0; y < dim.y; y++)
            for (unsigned x = 0; x < dim.x; x++, i++) {
                m.threads[i].index = {x, y, z};
                m.threads[i].fiber = nullptr;
                make_ready(m, &m.threads[i]);
            }
    memset(m.warp_epochs, 0, sizeof m.warp_epochs);
    for (const SharedArray *array : m.kernel->shared) memset(reinterpret_cast<void *>(array->start), 0xff, array->size);
    if (m.dynamic_size) memset(reinterpret_cast<void *>(m.dynamic_start), 0xff, m.dynamic_size);
    if (checking()) block_started();
    Fiber *fiber = m.free_fibers.back();
    m.free_fibers.pop_back();
    m.running_fiber = fiber;
    spdflow_emulator_switch(&m.scheduler, fiber->stack_pointer);
    if (!m.abandoned && m.exited == m.count) return true;
    if (!m.abandoned) report_deadlock(m);
    return false;
}

} // namespace

Result run_kernel(Kernel *kernel, const LaunchShape &shape, void **parameters) {
    Machine &m = machine();
    static const uint64_t seed = [] {
        const char *text = getenv("SPDFLOW_EMULATOR_SEED");
        return text ? strtoull(text, nullptr, 10) : 0ull;
    }();
    if (!m.stacks) prepare_all(m);
    m.seed = seed;
    m.launch++;
    m.random = ((seed * 0x9E3779B97F4A7C15ull) ^ (m.launch * 0xD1B54A32D192ED03ull)) | 1;
    m.kernel = kernel;
    m.parameters = parameters;
    m.count = shape.block.x * shape.block.y * shape.block.z;
    m.abandoned = false;
    m.dynamic_size = shape.dynamic_shared;
    if (m.dynamic_shared.size() < m.dynamic_size + 64) m.dynamic_shared.resize(m.dynamic_size + 64);
    m.dynamic_start = (reinterpret_cast<uintptr_t>(m.dynamic_shared.data()) + 63) & ~uintptr_t(63);
    spdflow_emulator_current.grid_dim = shape.grid;
    spdflow_emulator_current.block_dim = shape.block;
    start_findings();
    uint64_t blocks = uint64_t(shape.grid.x) * shape.grid.y * shape.grid.z;
    std::vector<uint32_t> order;
    if (seed) {
        for (uint64_t i = 0; i < blocks; i++) order.push_back(uint32_t(i));
        for (uint64_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[draw(m) % i]);
    }
    for (uint64_t i = 0; i < blocks; i++) {
        m.block = seed ? order[i] : uint32_t(i);
        spdflow_emulator_current.block_index = {m.block % shape.grid.x, m.block / shape.grid.x % shape.grid.y,
                                                m.block / shape.grid.x / shape.grid.y};
        if (!run_block(m)) {
            prepare_all(m); // fibers of threads that never ended
            break;
        }
    }
    m.kernel = nullptr;
    return findings() ? ILLEGAL_ADDRESS : SUCCESS;
}

void abandon_launch() {
    Machine &m = machine();
    m.abandoned = true;
    to_scheduler(m);
    abort(); // an abandoned fiber is never resumed
}

bool on_fiber_stack(uintptr_t address) {
    Machine &m = machine();
    return address - reinterpret_cast<uintptr_t>(m.stacks) < (STACK_BYTES + GUARD_BYTES) * (MAX_THREADS + 1);
}

const Kernel *running_kernel() { return machine().kernel; }
uint32_t running_launch() { return machine().launch; }
uint32_t running_block() { return machine().block; }
uint32_t running_thread() { return uint32_t(machine().current - machine().threads); }
uint32_t barrier_epoch() { return machine().epoch; }
uint32_t warp_epoch() { return machine().warp_epochs[running_thread() / WARP]; }
uintptr_t dynamic_shared_start() { return machine().dynamic_start; }
size_t dynamic_shared_size() { return machine().dynamic_size; }

} // namespace emulator

using namespace emulator;

int spdflow_emulator_barrier(int kind, int predicate) {
    Machine &m = machine();
    Thread *me = m.current;
    me->barrier_kind = kind;
    me->predicate = predicate;
    me->state = State::AT_BARRIER;
    m.at_barrier++;
    open_barrier(m);
    wait(m);
    return int(me->result);
}

uint64_t spdflow_emulator_warp(int kind, unsigned mask, uint64_t value, unsigned source) {
    Machine &m = machine();
    Thread *me = m.current;
    if (!(mask >> lane_of(m, me) & 1)) {
        finding("wrong mask", reinterpret_cast<uintptr_t>(__builtin_return_address(0)),
                "a warp collective whose mask does not name the calling lane");
        abandon_launch();
    }
    me->warp_kind = kind;
    me->mask = mask;
    me->value = value;
    me->source = source;
    me->state = State::IN_WARP;
    open_warp(m, unsigned(me - m.threads) / WARP * WARP, mask);
    wait(m);
    return me->result;
}

unsigned spdflow_emulator_active_mask(void) {
    // What is active together is up to the hardware: only the calling lane is certain.
    return 1u << lane_of(machine(), machine().current);
}

void *spdflow_emulator_dynamic_shared(void) { return reinterpret_cast<void *>(machine().dynamic_start); }

void spdflow_emulator_trap(const char *message) {
    finding("trap", reinterpret_cast<uintptr_t>(__builtin_return_address(0)), message);
    abandon_launch();
}
