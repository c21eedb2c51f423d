// A CUDA block on one CPU core: every thread a fiber, barriers and warp exchanges true meetings.
//
// Blocks run one after the other. Which fiber goes on first at a meeting, and which block comes first, follows
// SPDFLOW_EMULATOR_SEED, so that a kernel that relies on an order gives other results with another seed. A thread that
// waits where no other thread will ever come ends the launch with a report instead of hanging.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// What the driver offers to a kernel's library (driver.cpp) and the library to the driver (nvrtc.cpp writes it).
struct Cell { // four bytes of memory: who touched them last
    uint64_t written_in = 0, read_in = 0;
    unsigned writer_block = 0, writer_epoch = 0, writer = 0, reader_block = 0, reader_epoch = 0, reader = 0;
    bool known = false;
};

struct Allocation {
    uintptr_t base;
    size_t bytes;
    std::vector<Cell> cells;
};

struct Services {
    Allocation *(*near_by)(uintptr_t address); // the allocation that an address belongs to, or just misses
};

struct Kernel {
    bool (*launch)(dim3 grid, dim3 block, void **parameters, uint64_t number, const Services *services);
    unsigned most_threads;
};

namespace machine {
constexpr size_t STACK = 128 << 10;
constexpr unsigned EVERYBODY = ~0u;

struct Context {
    void *stack_pointer;
};

// Saves the registers that a call must keep and goes on where `to` stopped.
extern "C" void machine_switch(Context *from, Context *to);

struct Fiber {
    Context context{};
    std::unique_ptr<char[]> stack;
    dim3 index{};
    unsigned number = 0;
    bool done = true;
};

struct Warp {
    uint64_t value[32] = {};
    uint32_t arrived = 0, leaving = 0;
    unsigned meeting = 0;
};

struct State {
    Context scheduler{};
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Fiber *current = nullptr;
    unsigned alive = 0, at_barrier = 0, epoch = 0;
    uint64_t progress = 0, block_number = 0, launch_number = 0;
    bool failed = false;
    dim3 grid, block, block_index{0, 0, 0};
    const char *kernel = "";
    const Services *services = nullptr;
    void (*body)(void *) = nullptr;
    void *argument = nullptr;
};

inline thread_local State state;

inline void pause() { machine_switch(&state.current->context, &state.scheduler); }

// Ends the launch from within a thread of it.
[[noreturn]] inline void fail() {
    state.failed = true;
    pause();
    std::abort(); // a failed launch resumes nobody
}

inline void say(const char *what) {
    const State &s = state;
    fprintf(stderr, "emulator: %s: %s, in block (%u, %u, %u)", s.kernel, what, s.block_index.x, s.block_index.y, s.block_index.z);
}

inline void run_fiber() {
    state.body(state.argument);
    state.current->done = true;
    state.alive--;
    state.progress++;
    pause();
    std::abort(); // nobody resumes a thread that has ended
}

inline void barrier() {
    State &s = state;
    unsigned epoch = s.epoch;
    s.at_barrier++;
    s.progress++;
    while (s.epoch == epoch) {
        // Threads that have ended do not count, as on a device.
        if (s.at_barrier >= s.alive) {
            s.epoch++;
            s.at_barrier = 0;
            s.progress++;
        } else {
            pause();
        }
    }
}

// All lanes of `mask` meet, each with a value, and get that of lane `source`.
inline uint64_t exchange(uint32_t mask, uint64_t value, int source) {
    unsigned lane = state.current->number % 32;
    Warp &warp = state.warps[state.current->number / 32];
    if (!(mask >> lane & 1)) {
        say("a lane is not in the mask of its own exchange");
        fprintf(stderr, ", thread %u\n", state.current->number);
        fail();
    }
    while (warp.arrived >> lane & 1) pause(); // the last meeting still breaks up
    warp.value[lane] = value;
    warp.arrived |= 1u << lane;
    state.progress++;
    unsigned meeting = warp.meeting;
    while (warp.meeting == meeting && (warp.arrived & mask) != mask) pause();
    if (warp.meeting == meeting) {
        warp.meeting++;
        warp.leaving = mask;
    }
    uint64_t result = source >= 0 && source < 32 ? warp.value[source] : value;
    warp.leaving &= ~(1u << lane);
    state.progress++;
    if (!warp.leaving)
        warp.arrived &= ~mask;
    else
        while (warp.arrived >> lane & 1) pause();
    return result;
}

inline uint64_t next_random(uint64_t &seed) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

inline bool run_block(uint64_t seed) {
    State &s = state;
    unsigned threads = s.block.x * s.block.y * s.block.z;
    if (s.fibers.size() < threads) s.fibers.resize(threads);
    s.warps.assign((threads + 31) / 32, Warp{});
    s.alive = threads, s.at_barrier = 0, s.epoch = 0, s.block_number++;
    std::vector<unsigned> order(threads);
    for (unsigned i = 0; i < threads; i++) order[i] = i;
    uint64_t random = seed * 0x9E3779B97F4A7C15ull + 1;
    for (unsigned i = threads; seed && i > 1; i--) std::swap(order[i - 1], order[next_random(random) % i]);
    for (unsigned i = 0; i < threads; i++) {
        Fiber &fiber = s.fibers[i];
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        fiber.done = false, fiber.number = i;
        fiber.index = {i % s.block.x, i / s.block.x % s.block.y, i / (s.block.x * s.block.y)};
        // As if run_fiber had been interrupted at its first instruction: six registers and its address.
        void **top = reinterpret_cast<void **>(reinterpret_cast<uintptr_t>(fiber.stack.get() + STACK) & ~uintptr_t(15));
        *--top = nullptr;
        *--top = reinterpret_cast<void *>(run_fiber);
        for (int k = 0; k < 6; k++) *--top = nullptr;
        fiber.context.stack_pointer = top;
    }
    while (s.alive) {
        uint64_t before = s.progress;
        for (unsigned i : order) {
            if (s.fibers[i].done) continue;
            s.current = &s.fibers[i];
            machine_switch(&s.scheduler, &s.fibers[i].context);
            if (s.failed) return false;
        }
        if (s.progress == before) {
            say("threads wait for others that never come");
            fprintf(stderr, ": %u of %u are at a barrier, %u have ended\n", s.at_barrier, threads, threads - s.alive);
            return false;
        }
    }
    return true;
}

inline bool run(const char *kernel, dim3 grid, dim3 block, uint64_t number, const Services *services, void (*body)(void *),
                void *argument) {
    State &s = state;
    const char *text = getenv("SPDFLOW_EMULATOR_SEED");
    uint64_t seed = text ? strtoull(text, nullptr, 10) : 0;
    s.kernel = kernel, s.grid = grid, s.block = block, s.launch_number = number, s.services = services;
    s.body = body, s.argument = argument, s.failed = false;
    unsigned blocks = grid.x * grid.y * grid.z;
    for (unsigned k = 0; k < blocks; k++) {
        unsigned b = seed % 2 ? blocks - 1 - k : k;
        s.block_index = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
        if (!run_block(seed)) return false;
    }
    return true;
}

template <class... A> struct Call {
    void (*function)(A...);
    void **parameters;
    template <size_t... I> void make(std::index_sequence<I...>) {
        function(*static_cast<std::remove_reference_t<A> *>(parameters[I])...);
    }
    static void body(void *call) { static_cast<Call *>(call)->make(std::index_sequence_for<A...>{}); }
};

template <class... A>
bool launch(const char *kernel, void (*function)(A...), dim3 grid, dim3 block, void **parameters, uint64_t number,
            const Services *services) {
    Call<A...> call{function, parameters};
    return run(kernel, grid, block, number, services, Call<A...>::body, &call);
}
} // namespace machine
