/* The C half of a lazy library, see `toolchain`: finds the real library at the first call of any of its functions.
 *
 * SYMBOLS is a file of SYMBOL(name) lines, SONAMES a list of strings, ERROR what calls return when there is no library,
 * PREFIX makes the two names that the assembly half uses unique. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

#define JOIN(a, b) a##b
#define NAME(a, b) JOIN(a, b)
#define RESOLVE NAME(PREFIX, _lazy_resolve)
#define SLOTS NAME(PREFIX, _lazy_slots)

static const char *const names[] = {
#define SYMBOL(name) #name,
#include SYMBOLS
#undef SYMBOL
};
enum { COUNT = sizeof names / sizeof *names };
static const char *const sonames[] = {SONAMES};

__attribute__((visibility("hidden"))) void *SLOTS[COUNT];
__attribute__((visibility("hidden"))) void RESOLVE(void);

static const char TEXT[] = LIBRARY " is not installed on this machine, or too old";

static int missing(void) { return ERROR; }
/* nvrtcGetErrorString and the like: the text is the result. */
static const char *missing_text(void) { return TEXT; }
/* cuGetErrorString and cuGetErrorName: callers rely on a text, whatever the result is. */
static int missing_string_argument(int code, const char **text) {
    *text = code == ERROR ? TEXT : "unrecognized error code";
    return 0;
}
static int missing_name_argument(int code, const char **text) {
    *text = code == ERROR ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_UNKNOWN";
    return 0;
}

static void *fallback(const char *name) {
    if (!strcmp(name, "cuGetErrorString")) return (void *)missing_string_argument;
    if (!strcmp(name, "cuGetErrorName")) return (void *)missing_name_argument;
    if (strstr(name, "GetErrorString") || strstr(name, "GetStatus") || strstr(name, "GetLastError"))
        return (void *)missing_text;
    return (void *)missing;
}

void RESOLVE(void) {
    void *library = NULL;
    for (unsigned i = 0; i < sizeof sonames / sizeof *sonames && !library; i++)
        library = dlopen(sonames[i], RTLD_NOW | RTLD_LOCAL);
    /* Threads may come here at the same time; they store the same values. */
    for (unsigned i = 0; i < COUNT; i++) {
        void *function = library ? dlsym(library, names[i]) : NULL;
        __atomic_store_n(&SLOTS[i], function ? function : fallback(names[i]), __ATOMIC_RELEASE);
    }
}
