// What the parts of the emulated libcuda.so.1 share: memory, modules, fibers, checker.
//
// A launch is a host function call: module.cpp finds the kernel, fibers.cpp runs it once per CUDA thread, checker.cpp
// watches its accesses, memory.cpp knows which addresses are device memory. interface.h is what kernels see of it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "interface.h"

namespace emulator {

// The result codes of the driver interface that the emulator returns.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    FILE_NOT_FOUND = 301,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
};

// Hardware limits that a launch is held to; the same on every GPU since compute capability 3.
constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_GRID_YZ = 65535;
constexpr size_t MAX_STATIC_SHARED = 48 << 10;

// Bytes around a shared array declared with SHARED(type, name, size).
constexpr size_t SHARED_RED_ZONE = SPDFLOW_EMULATOR_RED_ZONE;

// Held by every call that touches device memory or runs a kernel: the emulated device does one thing at a time, in the
// order in which they come; else a thread that starts one kernel after the other would keep all others waiting.
class DeviceLock {
  public:
    void lock();
    void unlock();

  private:
    std::mutex guard;
    std::condition_variable next_turn;
    uint64_t tickets = 0, turn = 0;
    std::thread::id owner;
    int depth = 0;
};
DeviceLock &device_lock();

// memory.cpp ----------------------------------------------------------------------------------------------------------

// A live device allocation: `number` counts allocations from 1, so that messages of two runs agree.
struct Allocation {
    uintptr_t start;
    size_t size;
    uint32_t number;
};

bool checking(); // SPDFLOW_EMULATOR_CHECK=1
Result allocate(size_t size, uintptr_t *address);
Result release(uintptr_t address);
void memory_info(size_t *free_bytes, size_t *total_bytes);

// The range of all device memory; the part of memory.cpp that the checker needs at every access.
struct DeviceRange {
    uintptr_t start;
    size_t size;
    const uint32_t *owner; // for each granule: index into `allocations` + 1, 0 = nobody's
    const Allocation *allocations;
    uint8_t *written; // one byte per byte, 1 = was written; null when nothing is checked
};
extern DeviceRange device_range;
constexpr size_t GRANULE = 256;

inline bool in_arena(uintptr_t address) { return address - device_range.start < device_range.size; }
// Null outside every live allocation, which red zones are.
inline const Allocation *allocation_at(uintptr_t address) {
    if (!in_arena(address)) return nullptr;
    uint32_t slot = device_range.owner[(address - device_range.start) / GRANULE];
    if (!slot) return nullptr;
    const Allocation *allocation = &device_range.allocations[slot - 1];
    return address - allocation->start < allocation->size ? allocation : nullptr;
}
inline uint8_t *written_flags(uintptr_t address) { return device_range.written + (address - device_range.start); }

uint32_t nearest_allocation(uintptr_t address, ptrdiff_t *offset); // for messages: 0 when there is none near
// Whether the bytes lie in one live allocation; if not, says on stderr what `who` did.
bool check_range(uintptr_t address, size_t size, const char *who);

// module.cpp ----------------------------------------------------------------------------------------------------------

// Storage of one `__shared__` variable.
struct SharedArray {
    uintptr_t start;
    size_t size;
    std::string name;  // as the source spells it
    std::string owner; // the function that declares it
    bool red_zone;     // declared with SHARED(type, name, size)
};

struct Module;

struct Kernel {
    const spdflow_emulator_kernel *entry;
    Module *module;
    size_t shared_bytes;                     // of the arrays that the kernel itself declares
    std::vector<const SharedArray *> shared; // arrays to poison before each block
    size_t dynamic_shared_limit;
};

struct Module {
    void *library;
    std::string path;
    std::vector<SharedArray> shared;
    uintptr_t shared_start, shared_end; // of the section of all shared arrays
    uintptr_t start, end;               // of the loaded library
    std::vector<Kernel *> kernels;
};

Result load_module(const std::string &image, Module **module);
Result unload_module(Module *module);
std::string source_line(const Module *module, uintptr_t address); // ", line 12: `text`", or nothing

// fibers.cpp ----------------------------------------------------------------------------------------------------------

struct LaunchShape {
    dim3 grid, block;
    size_t dynamic_shared;
};

// Runs the kernel for every thread; ILLEGAL_ADDRESS when something was found.
Result run_kernel(Kernel *kernel, const LaunchShape &shape, void **parameters);
// Ends the launch at once, from inside a kernel.
[[noreturn]] void abandon_launch();

// What runs now. The checker reads it at every access, hence the plain structure.
struct Running {
    const Kernel *kernel;                   // null between launches
    uint32_t launch;                        // number of the launch, from 1
    uint32_t block, thread;                 // linear indices
    uint32_t epoch;                         // block barriers passed by the block
    uint32_t warp_epochs[MAX_THREADS / 32]; // __syncwarp()s passed by each warp
    uintptr_t stacks;                       // of the fibers, all in one range
    size_t stacks_size;
    uintptr_t dynamic_shared;
    size_t dynamic_shared_size;
};
extern Running running;

// checker.cpp ---------------------------------------------------------------------------------------------------------

// Reports what a kernel did wrong, once per kind and place; `code` is an address in the kernel or 0.
void finding(const char *kind, uintptr_t code, const std::string &what);
unsigned findings(); // of the running launch
void start_findings();
void block_started(); // shared memory holds nothing again

} // namespace emulator
