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

Running running;

namespace {

constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t GUARD_BYTES = 4096;
constexpr unsigned WARP = 32;
constexpr unsigned QUEUE = MAX_THREADS; // each thread is in it at most once

struct Fiber {
    void *stack_pointer;
    char *stack;
};

enum class State : uint8_t { NEW, READY, RUNNING, AT_BARRIER, IN_WARP, EXITED };

// A thread that waits or has waited; of others only the state counts.
struct Thread {
    Fiber *fiber;
    int barrier_kind, predicate;
    int warp_kind;
    unsigned mask, source;
    uint64_t value, result;
};

// Static and never destroyed, since host threads may run when the process ends.
struct Machine {
    Fiber fibers[MAX_THREADS + 1];
    Fiber *free_fibers[MAX_THREADS + 1];
    unsigned free_count;
    void *scheduler; // the host's own stack
    Fiber *running_fiber;
    Thread threads[MAX_THREADS];
    State states[MAX_THREADS];
    unsigned handed_over; // the thread that a freshly entered fiber runs first, + 1
    unsigned count, exited, at_barrier, in_warp;
    // Threads that have not begun come in the order first, first + stride, .. (modulo count).
    unsigned begun, first, stride;
    unsigned ready[QUEUE], ready_head, ready_tail; // threads that may go on after a wait
    uint32_t warp_waiting[MAX_THREADS / WARP], warp_live[MAX_THREADS / WARP];
    bool abandoned;
    uint64_t seed, random;
    Kernel *kernel;
    void **parameters;
    char *dynamic_shared;
    size_t dynamic_capacity;
} machine;

constexpr unsigned NOBODY = ~0u;

uint64_t draw() { // xorshift64
    uint64_t &random = machine.random;
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return random;
}

uint3 index_of(unsigned thread) {
    const dim3 &dim = spdflow_emulator_current.block_dim;
    if (dim.y == 1 && dim.z == 1) return {thread, 0, 0};
    return {thread % dim.x, thread / dim.x % dim.y, thread / dim.x / dim.y};
}

void make_ready(unsigned thread) {
    machine.states[thread] = State::READY;
    machine.ready[machine.ready_tail++ % QUEUE] = thread;
}

// The thread to run next: with a seed now one that waited, now a new one, otherwise the new ones first.
unsigned next_ready() {
    Machine &m = machine;
    unsigned waiting = m.ready_tail - m.ready_head;
    if (m.begun < m.count && !(m.seed && waiting && draw() & 1)) {
        if (!m.seed) return m.begun++;
        return unsigned((m.first + uint64_t(m.begun++) * m.stride) % m.count);
    }
    if (!waiting) return NOBODY;
    unsigned &first = m.ready[m.ready_head % QUEUE];
    if (m.seed) std::swap(first, m.ready[(m.ready_head + draw() % waiting) % QUEUE]);
    m.ready_head++;
    return first;
}

void enter(unsigned thread) {
    spdflow_emulator_current.thread_index = index_of(thread);
    running.thread = thread;
}

void switch_to(Fiber *fiber) {
    Fiber *from = machine.running_fiber;
    machine.running_fiber = fiber;
    spdflow_emulator_switch(&from->stack_pointer, fiber->stack_pointer);
}

void to_scheduler() {
    Fiber *from = machine.running_fiber;
    machine.running_fiber = nullptr;
    spdflow_emulator_switch(&from->stack_pointer, machine.scheduler);
}

void open_barrier();
void open_warp(unsigned warp, unsigned mask);

void exit_thread() {
    Machine &m = machine;
    const unsigned thread = running.thread, warp = thread / WARP;
    m.states[thread] = State::EXITED;
    m.warp_live[warp] &= ~(1u << thread % WARP);
    m.exited++;
    // Others may have waited for this thread only.
    if (m.in_warp)
        for (unsigned lane = 0; lane < WARP; lane++)
            if (m.warp_waiting[warp] >> lane & 1) open_warp(warp, m.threads[warp * WARP + lane].mask);
    if (m.at_barrier) open_barrier();
}

// What every fiber runs: threads, until one is resumed that waits on a fiber of its own.
void fiber_main() {
    Machine &m = machine;
    for (;;) {
        unsigned thread = m.handed_over ? m.handed_over - 1 : next_ready();
        m.handed_over = 0;
        if (thread == NOBODY) {
            m.free_fibers[m.free_count++] = m.running_fiber;
            to_scheduler();
        } else if (m.states[thread] == State::NEW) {
            enter(thread);
            m.states[thread] = State::RUNNING;
            m.kernel->entry->run(m.parameters);
            exit_thread();
        } else {
            m.free_fibers[m.free_count++] = m.running_fiber;
            enter(thread);
            m.states[thread] = State::RUNNING;
            switch_to(m.threads[thread].fiber);
        }
    }
}

void prepare(Fiber *fiber) {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(fiber->stack, STACK_BYTES);
    fiber->stack_pointer = new_context(fiber->stack + STACK_BYTES, fiber_main);
}

void prepare_all() {
    Machine &m = machine;
    if (!running.stacks) {
        size_t stride = STACK_BYTES + GUARD_BYTES;
        running.stacks_size = stride * (MAX_THREADS + 1);
        void *memory = mmap(nullptr, running.stacks_size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            fprintf(stderr, "emulator: cannot reserve stacks\n");
            abort();
        }
        running.stacks = reinterpret_cast<uintptr_t>(memory);
        for (size_t i = 0; i <= MAX_THREADS; i++) {
            char *guard = static_cast<char *>(memory) + i * stride;
            mprotect(guard, GUARD_BYTES, PROT_NONE); // an overflowing stack faults
            m.fibers[i].stack = guard + GUARD_BYTES;
        }
    }
    m.free_count = m.handed_over = 0;
    for (size_t i = MAX_THREADS + 1; i-- > 0;) {
        prepare(&m.fibers[i]);
        m.free_fibers[m.free_count++] = &m.fibers[i];
    }
}

// Gives the processor away until somebody makes this thread ready again.
void wait() {
    Machine &m = machine;
    const unsigned me = running.thread, next = next_ready();
    m.threads[me].fiber = m.running_fiber;
    if (next == NOBODY) {
        to_scheduler();
    } else if (m.states[next] == State::NEW) {
        m.handed_over = next + 1;
        switch_to(m.free_fibers[--m.free_count]);
    } else {
        enter(next);
        m.states[next] = State::RUNNING;
        if (next != me) switch_to(m.threads[next].fiber);
    }
}

std::string name_of(unsigned thread) {
    const uint3 index = index_of(thread);
    return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

// Reports on behalf of a thread that is not the one that runs.
void finding_of(unsigned thread, const char *kind, const std::string &what) {
    const uint3 current = spdflow_emulator_current.thread_index;
    spdflow_emulator_current.thread_index = index_of(thread);
    finding(kind, 0, what);
    spdflow_emulator_current.thread_index = current;
}

// Called when somebody arrives or exits: opens the barrier once every thread that lives stands at it.
void open_barrier() {
    Machine &m = machine;
    if (m.at_barrier == 0 || m.at_barrier + m.exited < m.count) return;
    if (m.exited) { // hardware would pass, but the program is wrong by the CUDA guide
        finding("divergent barrier", 0,
                std::to_string(m.at_barrier) + " threads wait at a block barrier that " + std::to_string(m.exited) +
                    " threads of the block never reached because they returned");
    }
    int total = 0;
    for (unsigned i = 0; i < m.count; i++)
        if (m.states[i] == State::AT_BARRIER) total += m.threads[i].predicate != 0;
    const int any = total != 0, all = unsigned(total) == m.at_barrier;
    m.at_barrier = 0;
    running.epoch++;
    for (unsigned i = 0; i < m.count; i++) {
        if (m.states[i] != State::AT_BARRIER) continue;
        const int kind = m.threads[i].barrier_kind;
        m.threads[i].result = uint64_t(kind == SPDFLOW_BARRIER_OR      ? any
                                       : kind == SPDFLOW_BARRIER_AND   ? all
                                       : kind == SPDFLOW_BARRIER_COUNT ? total
                                                                       : 0);
        make_ready(i);
    }
}

// Opens the meeting of the lanes in `mask`, once all of them that live are there.
void open_warp(unsigned warp, unsigned mask) {
    Machine &m = machine;
    const unsigned present = mask & m.warp_live[warp];
    if (!present || (m.warp_waiting[warp] & present) != present) return;
    Thread *lanes = m.threads + warp * WARP;
    const int kind = lanes[__builtin_ctz(present)].warp_kind;
    unsigned ballot = 0;
    for (unsigned left = present; left; left &= left - 1) {
        const unsigned lane = unsigned(__builtin_ctz(left));
        if (lanes[lane].mask != mask || lanes[lane].warp_kind != kind) return;
        if (lanes[lane].value) ballot |= 1u << lane;
    }
    for (unsigned left = present; left; left &= left - 1) {
        const unsigned lane = unsigned(__builtin_ctz(left)), source = lanes[lane].source;
        uint64_t &result = lanes[lane].result;
        switch (kind) {
        case SPDFLOW_BALLOT: result = ballot; break;
        case SPDFLOW_MATCH:
            result = 0;
            for (unsigned other = 0; other < WARP; other++)
                if (present >> other & 1 && lanes[other].value == lanes[lane].value) result |= 1ull << other;
            break;
        case SPDFLOW_SHUFFLE:
            if (source < WARP && present >> source & 1) {
                result = lanes[source].value;
                break;
            }
            result = ~uint64_t(0); // NaN: what an absent lane holds is undefined
            finding_of(warp * WARP + lane, "absent lane",
                       "a shuffle reads lane " + std::to_string(source) + ", which does not take part");
            break;
        default: break;
        }
    }
    if (kind == SPDFLOW_SYNC) running.warp_epochs[warp]++;
    m.warp_waiting[warp] &= ~present;
    m.in_warp -= unsigned(__builtin_popcount(present));
    for (unsigned left = present; left; left &= left - 1) make_ready(warp * WARP + unsigned(__builtin_ctz(left)));
}

void report_deadlock() {
    const Machine &m = machine;
    unsigned at_barrier = NOBODY, in_warp = NOBODY;
    for (unsigned i = m.count; i-- > 0;) {
        if (m.states[i] == State::AT_BARRIER) at_barrier = i;
        if (m.states[i] == State::IN_WARP) in_warp = i;
    }
    std::string what = "nobody can go on:";
    if (at_barrier != NOBODY)
        what +=
            " " + std::to_string(m.at_barrier) + " threads (first " + name_of(at_barrier) + ") wait at a block barrier";
    if (in_warp != NOBODY) {
        char mask[16];
        snprintf(mask, sizeof mask, "%08x", m.threads[in_warp].mask);
        what += std::string(at_barrier != NOBODY ? " and " : " ") + std::to_string(m.in_warp) + " threads (first " +
                name_of(in_warp) + ") at a warp collective of lanes 0x" + mask;
    }
    if (m.exited) what += "; " + std::to_string(m.exited) + " threads have returned";
    finding_of(at_barrier != NOBODY ? at_barrier : in_warp, "divergent barrier", what);
}

unsigned greatest_common_divisor(unsigned a, unsigned b) { return b ? greatest_common_divisor(b, a % b) : a; }

// Runs the block that spdflow_emulator_current names; false when the launch has to end.
bool run_block() {
    Machine &m = machine;
    m.exited = m.at_barrier = m.in_warp = m.ready_head = m.ready_tail = m.begun = 0;
    running.epoch = 0;
    memset(m.states, int(State::NEW), m.count);
    for (unsigned warp = 0; warp * WARP < m.count; warp++) {
        unsigned lanes = m.count - warp * WARP;
        m.warp_live[warp] = lanes >= WARP ? ~0u : (1u << lanes) - 1;
        m.warp_waiting[warp] = 0;
        running.warp_epochs[warp] = 0;
    }
    if (m.seed) {
        m.first = unsigned(draw() % m.count);
        do m.stride = unsigned(1 + draw() % m.count);
        while (greatest_common_divisor(m.stride, m.count) != 1);
    }
    for (const SharedArray *array : m.kernel->shared) memset(reinterpret_cast<void *>(array->start), 0xff, array->size);
    if (running.dynamic_shared_size) memset(m.dynamic_shared, 0xff, m.dynamic_capacity);
    if (checking()) block_started();
    m.running_fiber = m.free_fibers[--m.free_count];
    spdflow_emulator_switch(&m.scheduler, m.running_fiber->stack_pointer);
    if (!m.abandoned && m.exited == m.count) return true;
    if (!m.abandoned) report_deadlock();
    return false;
}

void provide_dynamic_shared(size_t size) {
    Machine &m = machine;
    if (m.dynamic_capacity < size + 64) {
        free(m.dynamic_shared);
        m.dynamic_capacity = size + 64;
        m.dynamic_shared = static_cast<char *>(malloc(m.dynamic_capacity));
    }
    running.dynamic_shared = (reinterpret_cast<uintptr_t>(m.dynamic_shared) + 63) & ~uintptr_t(63);
    running.dynamic_shared_size = size;
}

} // namespace

Result run_kernel(Kernel *kernel, const LaunchShape &shape, void **parameters) {
    Machine &m = machine;
    static const uint64_t seed = [] {
        const char *text = getenv("SPDFLOW_EMULATOR_SEED");
        return text ? strtoull(text, nullptr, 10) : 0ull;
    }();
    if (!running.stacks) prepare_all();
    running.launch++;
    running.kernel = kernel;
    m.seed = seed;
    m.random = ((seed * 0x9E3779B97F4A7C15ull) ^ (running.launch * 0xD1B54A32D192ED03ull)) | 1;
    m.kernel = kernel;
    m.parameters = parameters;
    m.count = shape.block.x * shape.block.y * shape.block.z;
    m.abandoned = false;
    provide_dynamic_shared(shape.dynamic_shared);
    spdflow_emulator_current.grid_dim = shape.grid;
    spdflow_emulator_current.block_dim = shape.block;
    start_findings();
    uint64_t blocks = uint64_t(shape.grid.x) * shape.grid.y * shape.grid.z;
    std::vector<uint32_t> order;
    if (seed) {
        for (uint64_t i = 0; i < blocks; i++) order.push_back(uint32_t(i));
        for (uint64_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[draw() % i]);
    }
    for (uint64_t i = 0; i < blocks; i++) {
        const uint32_t block = running.block = seed ? order[i] : uint32_t(i);
        spdflow_emulator_current.block_index = {block % shape.grid.x, block / shape.grid.x % shape.grid.y,
                                                block / shape.grid.x / shape.grid.y};
        if (!run_block()) {
            prepare_all(); // fibers of threads that never ended
            break;
        }
    }
    running.kernel = nullptr;
    return findings() ? ILLEGAL_ADDRESS : SUCCESS;
}

void abandon_launch() {
    machine.abandoned = true;
    to_scheduler();
    abort(); // an abandoned fiber is never resumed
}

} // namespace emulator

using namespace emulator;

int spdflow_emulator_barrier(int kind, int predicate) {
    const unsigned me = running.thread;
    Thread &thread = machine.threads[me];
    thread.barrier_kind = kind;
    thread.predicate = predicate;
    machine.states[me] = State::AT_BARRIER;
    machine.at_barrier++;
    open_barrier();
    wait();
    return int(thread.result);
}

uint64_t spdflow_emulator_warp(int kind, unsigned mask, uint64_t value, unsigned source) {
    const unsigned me = running.thread, lane = me % WARP;
    if (!(mask >> lane & 1)) {
        finding("wrong mask", reinterpret_cast<uintptr_t>(__builtin_return_address(0)),
                "a warp collective whose mask does not name the calling lane");
        abandon_launch();
    }
    Thread &thread = machine.threads[me];
    thread.warp_kind = kind;
    thread.mask = mask;
    thread.value = value;
    thread.source = source;
    machine.states[me] = State::IN_WARP;
    machine.warp_waiting[me / WARP] |= 1u << lane;
    machine.in_warp++;
    open_warp(me / WARP, mask);
    wait();
    return thread.result;
}

unsigned spdflow_emulator_active_mask(void) {
    // What is active together is up to the hardware: only the calling lane is certain.
    return 1u << running.thread % WARP;
}

void *spdflow_emulator_dynamic_shared(void) { return reinterpret_cast<void *>(running.dynamic_shared); }

void spdflow_emulator_trap(const char *message) {
    finding("trap", reinterpret_cast<uintptr_t>(__builtin_return_address(0)), message);
    abandon_launch();
}
