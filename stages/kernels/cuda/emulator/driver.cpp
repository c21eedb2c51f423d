// The emulated libcuda.so.1: the driver functions that cudarc calls. Every other function that the bindings
// declare is a stub made by `build`, which returns CUDA_ERROR_NOT_SUPPORTED.
//
// Everything runs when it is called, on the calling thread and under one lock, so streams and events are only handles.
// The exception are collectives that do not block: while one is on its way, the streams of its device are busy, and what
// needs the device waits for it. Devices differ in their number only; they share the memory.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "runtime.h"

using namespace emulator;

typedef unsigned long long DevicePointer;
typedef void *Handle;

namespace {

// Indices into the driver's attribute enumerations.
enum DeviceAttribute {
    MAX_THREADS_PER_BLOCK = 1,
    MAX_BLOCK_X = 2,
    MAX_BLOCK_Y = 3,
    MAX_BLOCK_Z = 4,
    MAX_GRID_X = 5,
    MAX_GRID_Y = 6,
    MAX_GRID_Z = 7,
    MAX_SHARED_PER_BLOCK = 8,
    WARP_SIZE = 10,
    MAX_REGISTERS_PER_BLOCK = 12,
    CLOCK_RATE = 13,
    MULTIPROCESSOR_COUNT = 16,
    MAX_THREADS_PER_MULTIPROCESSOR = 39,
    COMPUTE_CAPABILITY_MAJOR = 75,
    COMPUTE_CAPABILITY_MINOR = 76,
    MAX_SHARED_PER_MULTIPROCESSOR = 81,
    MAX_SHARED_PER_BLOCK_OPTIN = 97,
    MEMORY_POOLS_SUPPORTED = 115,
};
enum FunctionAttribute {
    FUNCTION_MAX_THREADS = 0,
    FUNCTION_SHARED = 1,
    FUNCTION_REGISTERS = 4,
    FUNCTION_DYNAMIC_LIMIT = 8
};

constexpr size_t MAX_SHARED_OPTIN = 164 << 10; // 163 KiB on compute capability 8.0, and the reserved one

int contexts[16]; // their addresses are the contexts
thread_local int current_device = -1;
bool initialized = false;
std::set<Module *> modules;
std::map<Handle, char> handles; // streams and events that live
uintptr_t next_handle = 0x1000;

int device_count() {
    static const int count = [] {
        const char *text = getenv("SPDFLOW_EMULATOR_DEVICES");
        int number = text && *text ? atoi(text) : 1;
        return number < 0 ? 0 : number > 16 ? 16 : number;
    }();
    return count;
}

// How many collectives each device has to do yet.
std::mutex busy_lock;
std::condition_variable idle;
int busy[16];

void wait_until_idle() {
    std::unique_lock<std::mutex> lock(busy_lock);
    idle.wait(lock, [] { return busy[current_device] == 0; });
}

// What touches memory or kernels needs a context on the calling thread: a thread that has not called cuCtxSetCurrent
// (bind_to_thread in cudarc) gets an error, as it does of the real driver. With one, it comes after all before it.
bool no_context() {
    if (current_device < 0) return true;
    wait_until_idle();
    return false;
}

struct Locked {
    std::lock_guard<DeviceLock> lock{device_lock()};
};

Result make_handle(Handle *handle, char kind) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    next_handle += 16;
    *handle = reinterpret_cast<Handle>(next_handle);
    handles[*handle] = kind;
    return SUCCESS;
}

Result drop_handle(Handle handle, char kind) {
    Locked locked;
    auto found = handles.find(handle);
    if (found == handles.end() || found->second != kind) return INVALID_HANDLE;
    handles.erase(found);
    return SUCCESS;
}

void mark_written(uintptr_t address, size_t size) {
    if (checking() && size && in_arena(address)) memset(written_flags(address), 1, size);
}

Result copy_in(DevicePointer to, const void *from, size_t size) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    if (!check_range(to, size, "copy from the host")) return INVALID_VALUE;
    if (size) memcpy(reinterpret_cast<void *>(to), from, size);
    mark_written(to, size);
    return SUCCESS;
}

Result copy_out(void *to, DevicePointer from, size_t size) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    if (!check_range(from, size, "copy to the host")) return INVALID_VALUE;
    if (size) memcpy(to, reinterpret_cast<void *>(from), size);
    return SUCCESS;
}

Result copy_across(DevicePointer to, DevicePointer from, size_t size) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    if (!check_range(to, size, "copy into device memory") || !check_range(from, size, "copy from device memory"))
        return INVALID_VALUE;
    if (size) memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), size);
    // A copy of bytes that were never written leaves them so: only a kernel that reads them is wrong.
    if (checking() && size) memmove(written_flags(to), written_flags(from), size);
    return SUCCESS;
}

template <class T> Result fill(DevicePointer to, T value, size_t count) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    if (to % sizeof(T)) return INVALID_VALUE;
    if (!check_range(to, count * sizeof(T), "memset")) return INVALID_VALUE;
    auto *items = reinterpret_cast<T *>(to);
    for (size_t i = 0; i < count; i++) items[i] = value;
    mark_written(to, count * sizeof(T));
    return SUCCESS;
}

Result refuse(const Kernel *kernel, const std::string &why) {
    fprintf(stderr, "emulator: launch refused: kernel `%s`: %s\n", kernel->entry->name, why.c_str());
    return INVALID_VALUE;
}

// Appends a line to the file of SPDFLOW_EMULATOR_LAUNCHED for each kernel that this process has launched: what a run of
// tests has gone through.
void note(const Kernel *kernel) {
    static const char *path = getenv("SPDFLOW_EMULATOR_LAUNCHED");
    static std::set<std::string> noted;
    if (!path || !*path || !noted.insert(kernel->entry->name).second) return;
    if (FILE *file = fopen(path, "a")) {
        fprintf(file, "%s%s\n", kernel->entry->name, checking() ? " checked" : "");
        fclose(file);
    }
}

Result launch(Kernel *kernel, const LaunchShape &shape, void **parameters) {
    const dim3 &grid = shape.grid, &block = shape.block;
    size_t threads = size_t(block.x) * block.y * block.z;
    auto text = [](const dim3 &d) {
        return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
    };
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z)
        return refuse(kernel, "grid " + text(grid) + " or block " + text(block) + " is empty");
    if (grid.x > 0x7fffffffu || grid.y > MAX_GRID_YZ || grid.z > MAX_GRID_YZ)
        return refuse(kernel, "grid " + text(grid) + " is larger than (2147483647,65535,65535)");
    if (threads > MAX_THREADS || block.z > 64)
        return refuse(kernel, "block " + text(block) + " has more than 1024 threads, or 64 in z");
    if (threads > kernel->entry->max_threads)
        return refuse(kernel, "block " + text(block) + " has more threads than __launch_bounds__(" +
                                  std::to_string(kernel->entry->max_threads) + ")");
    if (kernel->shared_bytes > MAX_STATIC_SHARED)
        return refuse(kernel,
                      std::to_string(kernel->shared_bytes) + " bytes of static shared memory, at most 49152 exist");
    if (kernel->shared_bytes + shape.dynamic_shared > MAX_STATIC_SHARED &&
        shape.dynamic_shared > kernel->dynamic_shared_limit)
        return refuse(kernel, std::to_string(kernel->shared_bytes + shape.dynamic_shared) +
                                  " bytes of shared memory without a larger limit set for the function");
    if (uint64_t(grid.x) * grid.y * grid.z > 0xffffffffu)
        return refuse(kernel, "the emulator runs 2^32 blocks at most");
    Result result = run_kernel(kernel, shape, parameters);
    if (result == SUCCESS) note(kernel);
    return result;
}

} // namespace

namespace emulator {
DeviceLock &device_lock() {
    static auto *lock = new DeviceLock;
    return *lock;
}

void DeviceLock::lock() {
    std::unique_lock<std::mutex> hold(guard);
    if (depth == 0 || owner != std::this_thread::get_id()) {
        const uint64_t ticket = tickets++;
        next_turn.wait(hold, [&] { return turn == ticket; });
        owner = std::this_thread::get_id();
    }
    depth++;
}

void DeviceLock::unlock() {
    std::lock_guard<std::mutex> hold(guard);
    if (--depth) return;
    turn++;
    next_turn.notify_all();
}
} // namespace emulator

int spdflow_emulator_check_range(uint64_t address, size_t size, const char *who) {
    Locked locked;
    return check_range(address, size, who);
}
void spdflow_emulator_mark_written(uint64_t address, size_t size) {
    Locked locked;
    mark_written(address, size);
}
int spdflow_emulator_current_device(void) { return current_device < 0 ? 0 : current_device; }
void spdflow_emulator_stream_begin(int device) {
    std::lock_guard<std::mutex> lock(busy_lock);
    busy[device]++;
}
void spdflow_emulator_stream_end(int device) {
    std::lock_guard<std::mutex> lock(busy_lock);
    busy[device]--;
    idle.notify_all();
}

extern "C" {

// Devices and contexts
// -------------------------------------------------------------------------------------------------

Result cuInit(unsigned) {
    if (device_count() == 0) return Result(100); // CUDA_ERROR_NO_DEVICE
    initialized = true;
    return SUCCESS;
}
Result cuDriverGetVersion(int *version) { return *version = 12000, SUCCESS; }
Result cuDeviceGet(int *device, int ordinal) {
    if (!initialized) return NOT_INITIALIZED;
    if (ordinal < 0 || ordinal >= device_count()) return INVALID_DEVICE;
    return *device = ordinal, SUCCESS;
}
Result cuDeviceGetCount(int *count) {
    if (!initialized) return NOT_INITIALIZED;
    return *count = device_count(), SUCCESS;
}
Result cuDeviceGetName(char *name, int size, int device) {
    return snprintf(name, size_t(size), "emulated device %d", device), SUCCESS;
}
Result cuDeviceGetUuid(unsigned char *uuid, int device) {
    memset(uuid, 0, 16);
    uuid[15] = static_cast<unsigned char>(device + 1);
    return SUCCESS;
}
Result cuDeviceGetUuid_v2(unsigned char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
Result cuDeviceTotalMem_v2(size_t *bytes, int) {
    Locked locked;
    size_t unused;
    return memory_info(&unused, bytes), SUCCESS;
}
Result cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case MAX_THREADS_PER_BLOCK:
    case MAX_BLOCK_X:
    case MAX_BLOCK_Y: *value = MAX_THREADS; break;
    case MAX_BLOCK_Z: *value = 64; break;
    case MAX_GRID_X: *value = 0x7fffffff; break;
    case MAX_GRID_Y:
    case MAX_GRID_Z: *value = MAX_GRID_YZ; break;
    case MAX_SHARED_PER_BLOCK: *value = MAX_STATIC_SHARED; break;
    case MAX_SHARED_PER_MULTIPROCESSOR: *value = MAX_SHARED_OPTIN; break;
    case MAX_SHARED_PER_BLOCK_OPTIN: *value = MAX_SHARED_OPTIN - 1024; break;
    case WARP_SIZE: *value = 32; break;
    case MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
    case CLOCK_RATE: *value = 1000000; break;
    case MULTIPROCESSOR_COUNT: *value = 4; break;
    case MAX_THREADS_PER_MULTIPROCESSOR: *value = 2048; break;
    case COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
    case COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case MEMORY_POOLS_SUPPORTED: *value = 1; break;
    default: *value = 0;
    }
    return SUCCESS;
}

Result cuDevicePrimaryCtxRetain(Handle *context, int device) {
    if (device < 0 || device >= device_count()) return INVALID_DEVICE;
    return *context = &contexts[device], SUCCESS;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxSetCurrent(Handle context) {
    if (!context) return current_device = -1, SUCCESS;
    auto *which = static_cast<int *>(context);
    if (which < contexts || which >= contexts + 16) return INVALID_CONTEXT;
    return current_device = int(which - contexts), SUCCESS;
}
Result cuCtxGetCurrent(Handle *context) {
    return *context = current_device < 0 ? nullptr : &contexts[current_device], SUCCESS;
}
Result cuCtxGetDevice(int *device) {
    if (current_device < 0) return INVALID_CONTEXT;
    return *device = current_device, SUCCESS;
}
Result cuCtxSynchronize() { return no_context() ? INVALID_CONTEXT : SUCCESS; }

// Streams and events
// ---------------------------------------------------------------------------------------------------

Result cuStreamCreate(Handle *stream, unsigned) { return make_handle(stream, 's'); }
Result cuStreamCreateWithPriority(Handle *stream, unsigned, int) { return make_handle(stream, 's'); }
Result cuStreamDestroy_v2(Handle stream) { return drop_handle(stream, 's'); }
Result cuStreamSynchronize(Handle) { return no_context() ? INVALID_CONTEXT : SUCCESS; }
Result cuStreamQuery(Handle) {
    if (current_device < 0) return INVALID_CONTEXT;
    std::lock_guard<std::mutex> lock(busy_lock);
    return busy[current_device] ? NOT_READY : SUCCESS;
}
Result cuStreamWaitEvent(Handle, Handle, unsigned) { return SUCCESS; }
Result cuEventCreate(Handle *event, unsigned) { return make_handle(event, 'e'); }
Result cuEventDestroy_v2(Handle event) { return drop_handle(event, 'e'); }
Result cuEventRecord(Handle, Handle) { return SUCCESS; }
Result cuEventQuery(Handle) { return SUCCESS; }
Result cuEventSynchronize(Handle) { return SUCCESS; }
Result cuEventElapsedTime(float *milliseconds, Handle, Handle) { return *milliseconds = 0, SUCCESS; }

// Memory
// ---------------------------------------------------------------------------------------------------------------

Result cuMemAlloc_v2(DevicePointer *pointer, size_t size) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    uintptr_t address = 0;
    Result result = allocate(size, &address);
    *pointer = address;
    return result;
}
Result cuMemAllocAsync(DevicePointer *pointer, size_t size, Handle) { return cuMemAlloc_v2(pointer, size); }
Result cuMemAllocFromPoolAsync(DevicePointer *pointer, size_t size, Handle, Handle) {
    return cuMemAlloc_v2(pointer, size);
}
Result cuMemFree_v2(DevicePointer pointer) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    return release(pointer);
}
Result cuMemFreeAsync(DevicePointer pointer, Handle) { return cuMemFree_v2(pointer); }
Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    return memory_info(free_bytes, total_bytes), SUCCESS;
}
Result cuMemAllocHost_v2(void **pointer, size_t size) {
    return (*pointer = malloc(size ? size : 1)) ? SUCCESS : OUT_OF_MEMORY;
}
Result cuMemHostAlloc(void **pointer, size_t size, unsigned) { return cuMemAllocHost_v2(pointer, size); }
Result cuMemFreeHost(void *pointer) { return free(pointer), SUCCESS; }
Result cuDeviceGetDefaultMemPool(Handle *pool, int) { return *pool = contexts, SUCCESS; }
Result cuDeviceGetMemPool(Handle *pool, int) { return *pool = contexts, SUCCESS; }
Result cuDeviceSetMemPool(int, Handle) { return SUCCESS; }
Result cuMemPoolSetAttribute(Handle, int, void *) { return SUCCESS; }
Result cuMemPoolGetAttribute(Handle, int, void *value) { return memset(value, 0, 4), SUCCESS; }
Result cuMemPoolTrimTo(Handle, size_t) { return SUCCESS; }

Result cuMemcpyHtoD_v2(DevicePointer to, const void *from, size_t size) { return copy_in(to, from, size); }
Result cuMemcpyHtoDAsync_v2(DevicePointer to, const void *from, size_t size, Handle) { return copy_in(to, from, size); }
Result cuMemcpyDtoH_v2(void *to, DevicePointer from, size_t size) { return copy_out(to, from, size); }
Result cuMemcpyDtoHAsync_v2(void *to, DevicePointer from, size_t size, Handle) { return copy_out(to, from, size); }
Result cuMemcpyDtoD_v2(DevicePointer to, DevicePointer from, size_t size) { return copy_across(to, from, size); }
Result cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t size, Handle) {
    return copy_across(to, from, size);
}
Result cuMemcpyPeer(DevicePointer to, Handle, DevicePointer from, Handle, size_t size) {
    return copy_across(to, from, size);
}
Result cuMemcpyPeerAsync(DevicePointer to, Handle, DevicePointer from, Handle, size_t size, Handle) {
    return copy_across(to, from, size);
}
Result cuMemsetD8_v2(DevicePointer to, unsigned char value, size_t count) { return fill(to, value, count); }
Result cuMemsetD8Async(DevicePointer to, unsigned char value, size_t count, Handle) { return fill(to, value, count); }
Result cuMemsetD16_v2(DevicePointer to, unsigned short value, size_t count) { return fill(to, value, count); }
Result cuMemsetD16Async(DevicePointer to, unsigned short value, size_t count, Handle) { return fill(to, value, count); }
Result cuMemsetD32_v2(DevicePointer to, unsigned value, size_t count) { return fill(to, value, count); }
Result cuMemsetD32Async(DevicePointer to, unsigned value, size_t count, Handle) { return fill(to, value, count); }

// Modules and launches
// -------------------------------------------------------------------------------------------------

Result cuModuleLoadData(Module **module, const void *image) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    Result result = load_module(static_cast<const char *>(image), module);
    if (result == SUCCESS) modules.insert(*module);
    return result;
}
Result cuModuleLoadDataEx(Module **module, const void *image, unsigned, int *, void **) {
    return cuModuleLoadData(module, image);
}
Result cuModuleLoad(Module **module, const char *path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return FILE_NOT_FOUND;
    std::string image{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    return cuModuleLoadData(module, image.c_str());
}
Result cuModuleUnload(Module *module) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    if (!modules.erase(module)) return INVALID_HANDLE;
    return unload_module(module);
}
Result cuModuleGetFunction(Kernel **function, Module *module, const char *name) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    if (!modules.count(module)) return INVALID_HANDLE;
    for (Kernel *kernel : module->kernels)
        if (!strcmp(kernel->entry->name, name)) return *function = kernel, SUCCESS;
    fprintf(stderr, "emulator: no kernel `%s` in the module\n", name);
    return NOT_FOUND;
}
Result cuFuncGetAttribute(int *value, int attribute, Kernel *kernel) {
    *value = attribute == FUNCTION_MAX_THREADS     ? int(kernel->entry->max_threads)
             : attribute == FUNCTION_SHARED        ? int(kernel->shared_bytes)
             : attribute == FUNCTION_REGISTERS     ? 32 // unknown here; `report` has the real number
             : attribute == FUNCTION_DYNAMIC_LIMIT ? int(kernel->dynamic_shared_limit)
                                                   : 0;
    return SUCCESS;
}
Result cuFuncSetAttribute(Kernel *kernel, int attribute, int value) {
    if (attribute == FUNCTION_DYNAMIC_LIMIT) {
        if (value < 0 || size_t(value) + kernel->shared_bytes > MAX_SHARED_OPTIN - 1024) return INVALID_VALUE;
        kernel->dynamic_shared_limit = size_t(value);
    }
    return SUCCESS;
}
Result cuFuncSetCacheConfig(Kernel *, int) { return SUCCESS; }
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Kernel *, int block_size, size_t) {
    return *blocks = block_size > 0 ? 2048 / block_size : 0, SUCCESS;
}
Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, Kernel *kernel, int size, size_t shared,
                                                            unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, size, shared);
}

Result cuLaunchKernel(Kernel *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned dynamic_shared, Handle, void **parameters, void **) {
    if (no_context()) return INVALID_CONTEXT;
    Locked locked;
    return launch(kernel, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic_shared}, parameters);
}

// Errors
// ---------------------------------------------------------------------------------------------------------------

static const struct {
    int code;
    const char *name, *text;
} ERRORS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument (emulated; see standard error)"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory (emulated)"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "the emulator runs only what its own libnvrtc compiled"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "no context is current on this thread"},
    {FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "the emulator found an error in a kernel; see standard error"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "the emulator does not have this function"},
};

Result cuGetErrorString(int code, const char **text) {
    for (const auto &error : ERRORS)
        if (error.code == code) return *text = error.text, SUCCESS;
    return *text = "unrecognized error code", SUCCESS;
}
Result cuGetErrorName(int code, const char **name) {
    for (const auto &error : ERRORS)
        if (error.code == code) return *name = error.name, SUCCESS;
    return *name = "CUDA_ERROR_UNKNOWN", SUCCESS;
}
}
