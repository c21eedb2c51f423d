// libcuda.so.1: one device whose memory is the host's and whose kernels are libraries that nvrtc.cpp made.
//
// Memory is filled with NaN and lies between pages that cannot be touched, as close as alignment allows to the one behind
// it. Everything has happened when a call returns, so streams and events have nothing to do. Launches of several host
// threads wait for one another.
#include "machine.h"
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>

#define API extern "C" __attribute__((visibility("default"))) int
typedef unsigned long long Pointer;

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500,
       ILLEGAL_ADDRESS = 700, LAUNCH_FAILED = 719 };

static const size_t PAGE = 4096;
static int something = 0; // what handles point at

struct Mapping {
    char *start;
    size_t bytes;
};

static std::mutex memory_lock, launch_lock;
static std::map<uintptr_t, Allocation> allocations;
static std::map<uintptr_t, Mapping> mappings;
static size_t bytes_used = 0;

static Allocation *find(uintptr_t address) {
    auto after = allocations.upper_bound(address);
    if (after != allocations.begin()) {
        auto before = std::prev(after);
        if (address < before->second.base + before->second.bytes + PAGE) return &before->second;
    }
    if (after != allocations.end() && after->second.base - address < PAGE) return &after->second;
    return nullptr;
}

// For the checker, while other threads of the host may allocate.
static Allocation *near_by(uintptr_t address) {
    std::lock_guard<std::mutex> guard(memory_lock);
    return find(address);
}

// Whether n bytes from p on lie in one allocation; marks them as written if they are to be.
static bool holds(Pointer p, size_t n, bool writes, const char *what) {
    std::lock_guard<std::mutex> guard(memory_lock);
    if (n == 0) return true;
    Allocation *memory = find(p);
    if (!memory || p < memory->base || p + n > memory->base + memory->bytes) {
        fprintf(stderr, "emulator: %s of %zu bytes outside of memory\n", what, n);
        return false;
    }
    for (size_t i = (p - memory->base) / 4; writes && i < (p - memory->base + n + 3) / 4; i++) memory->cells[i].known = true;
    return true;
}

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int *version) { return *version = 12080, SUCCESS; }
API cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : INVALID_DEVICE; }
API cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
API cuDeviceGetName(char *name, int length, int) { return snprintf(name, length, "emulated device"), SUCCESS; }
API cuDeviceGetAttribute(int *value, int attribute, int) {
    // The compute capability 8.0, and no memory pools: every allocation is looked at on its own.
    *value = attribute == 75 ? 8 : attribute == 76 || attribute == 115 ? 0 : 1;
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(void **context, int) { return *context = &something, SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void *) { return SUCCESS; }
API cuCtxGetCurrent(void **context) { return *context = &something, SUCCESS; }
API cuCtxSynchronize() { return SUCCESS; }
API cuEventCreate(void **event, unsigned) { return *event = &something, SUCCESS; }
API cuEventDestroy_v2(void *) { return SUCCESS; }
API cuEventRecord(void *, void *) { return SUCCESS; }
API cuStreamCreate(void **stream, unsigned) { return *stream = &something, SUCCESS; }
API cuStreamDestroy_v2(void *) { return SUCCESS; }
API cuStreamSynchronize(void *) { return SUCCESS; }
API cuStreamWaitEvent(void *, void *, unsigned) { return SUCCESS; }

API cuMemAlloc_v2(Pointer *p, size_t n) {
    if (n == 0) n = 1; // dfdx asks for nothing when it starts
    const char *limit = getenv("SPDFLOW_EMULATOR_MEMORY");
    std::lock_guard<std::mutex> guard(memory_lock);
    if (limit && bytes_used + n > strtoull(limit, nullptr, 10)) return OUT_OF_MEMORY;
    size_t padded = (n + 15) / 16 * 16, pages = (padded + PAGE - 1) / PAGE * PAGE;
    char *start = static_cast<char *>(mmap(nullptr, pages + 2 * PAGE, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (start == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(start, PAGE, PROT_NONE);
    mprotect(start + PAGE + pages, PAGE, PROT_NONE);
    memset(start + PAGE, 0xff, pages);
    *p = reinterpret_cast<Pointer>(start + PAGE + pages - padded);
    mappings[*p] = {start, pages + 2 * PAGE};
    allocations[*p] = Allocation{uintptr_t(*p), n, std::vector<Cell>((n + 3) / 4)};
    bytes_used += n;
    return SUCCESS;
}
API cuMemFree_v2(Pointer p) {
    std::lock_guard<std::mutex> guard(memory_lock);
    auto mapping = mappings.find(p);
    if (mapping == mappings.end()) {
        fprintf(stderr, "emulator: memory is freed that is not allocated\n");
        return INVALID_VALUE;
    }
    bytes_used -= allocations[p].bytes;
    munmap(mapping->second.start, mapping->second.bytes);
    mappings.erase(mapping);
    allocations.erase(p);
    return SUCCESS;
}
API cuMemAllocAsync(Pointer *p, size_t n, void *) { return cuMemAlloc_v2(p, n); }
API cuMemFreeAsync(Pointer p, void *) { return cuMemFree_v2(p); }
API cuMemsetD8_v2(Pointer p, unsigned char value, size_t n) {
    if (!holds(p, n, true, "a fill")) return INVALID_VALUE;
    return memset(reinterpret_cast<void *>(p), value, n), SUCCESS;
}
API cuMemsetD8Async(Pointer p, unsigned char value, size_t n, void *) { return cuMemsetD8_v2(p, value, n); }
API cuMemcpyHtoD_v2(Pointer to, const void *from, size_t n) {
    if (!holds(to, n, true, "a copy to the device")) return INVALID_VALUE;
    return memcpy(reinterpret_cast<void *>(to), from, n), SUCCESS;
}
API cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t n, void *) { return cuMemcpyHtoD_v2(to, from, n); }
API cuMemcpyDtoH_v2(void *to, Pointer from, size_t n) {
    if (!holds(from, n, false, "a copy from the device")) return INVALID_VALUE;
    return memcpy(to, reinterpret_cast<void *>(from), n), SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t n, void *) { return cuMemcpyDtoH_v2(to, from, n); }
API cuMemcpyDtoD_v2(Pointer to, Pointer from, size_t n) {
    if (!holds(from, n, false, "a copy") || !holds(to, n, true, "a copy")) return INVALID_VALUE;
    return memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), n), SUCCESS;
}
API cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t n, void *) { return cuMemcpyDtoD_v2(to, from, n); }

API cuModuleLoadData(void **module, const void *image) {
    *module = dlopen(static_cast<const char *>(image), RTLD_NOW | RTLD_LOCAL);
    return *module ? SUCCESS : INVALID_IMAGE;
}
API cuModuleUnload(void *) { return SUCCESS; }
API cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = dlsym(module, (std::string("kernel_") + name).c_str());
    return *function ? SUCCESS : NOT_FOUND;
}
API cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                   void *, void **parameters, void **) {
    static uint64_t number = 0;
    static const Services services = {near_by};
    const Kernel *kernel = static_cast<const Kernel *>(function);
    unsigned threads = bx * by * bz;
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !threads || threads > kernel->most_threads) {
        fprintf(stderr, "emulator: no device starts (%u, %u, %u) blocks of %u threads\n", gx, gy, gz, threads);
        return INVALID_VALUE;
    }
    std::lock_guard<std::mutex> guard(launch_lock);
    return kernel->launch({gx, gy, gz}, {bx, by, bz}, parameters, ++number, &services) ? SUCCESS : ILLEGAL_ADDRESS;
}
API cuGetErrorString(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == ILLEGAL_ADDRESS ? "a kernel failed" : "an error of the emulated device";
    return SUCCESS;
}
API cuGetErrorName(int error, const char **text) { return cuGetErrorString(error, text); }
