// The emulated libnvrtc.so.12: compiles CUDA source with the host's C++ compiler.
//
// The source is wrapped in shim.h and a table of its kernels and compiled to a shared library in a cache, named by a
// digest of everything that goes into it. What is handed out as PTX is a text that names that library; the emulated
// driver loads it. Kernels are declared as `extern "C" __global__ void [__launch_bounds__(N[, M])] name(...)`.
#include <dlfcn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>
#include <vector>

namespace {

enum Result : int {
    SUCCESS = 0,
    INVALID_INPUT = 3,
    INVALID_PROGRAM = 4,
    COMPILATION = 6,
    BUILTIN_OPERATION_FAILURE = 7,
};

struct Program {
    std::string source, name, log, ptx;
};

struct KernelName {
    std::string name, max_threads;
};

bool is_set(const char *variable) {
    const char *value = getenv(variable);
    return value && *value && strcmp(value, "0") != 0;
}

std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool write_file(const std::string &path, const std::string &text) {
    std::ofstream file(path, std::ios::binary);
    file << text;
    return bool(file.flush());
}

std::string quoted(const std::string &text) {
    std::string result = "'";
    for (char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return result + "'";
}

// The folder that holds this library's folder: the shim is in include/, the emulated driver in lib/.
std::string home() {
    Dl_info info;
    if (!dladdr(reinterpret_cast<void *>(&home), &info)) return ".";
    char *path = realpath(info.dli_fname, nullptr);
    std::string result = path ? path : info.dli_fname;
    free(path);
    for (int i = 0; i < 2; i++) {
        size_t slash = result.rfind('/');
        if (slash != std::string::npos) result.erase(slash);
    }
    return result;
}

std::string cache_folder() {
    const char *folder = getenv("SPDFLOW_EMULATOR_CACHE");
    if (folder && *folder) {
        mkdir(folder, 0777);
        return folder;
    }
    const char *temporary = getenv("TMPDIR");
    std::string result = temporary && *temporary ? temporary : "/tmp";
    result += "/spdflow-cuda-emulator-" + std::to_string(getuid());
    mkdir(result.c_str(), 0700);
    struct stat status;
    // A library of somebody else must not be loaded.
    if (stat(result.c_str(), &status) || status.st_uid != getuid()) return "";
    return result;
}

std::string digest(const std::string &text) { // FNV-1a twice, 128 bits: no adversary, only different sources
    uint64_t a = 14695981039346656037ull, b = 0x9E3779B97F4A7C15ull;
    for (unsigned char c : text) {
        a = (a ^ c) * 1099511628211ull;
        b = (b ^ c) * 0x100000001B3ull + (b >> 29);
    }
    char result[33];
    snprintf(result, sizeof result, "%016llx%016llx", (unsigned long long)a, (unsigned long long)b);
    return result;
}

// Runs a command line and returns what it says on both channels; `status` is its exit code.
std::string run(const std::string &command, int *status) {
    FILE *pipe = popen(("LD_PRELOAD= " + command + " 2>&1").c_str(), "r");
    std::string output;
    if (!pipe) {
        *status = 127;
        return "cannot start " + command;
    }
    char buffer[4096];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
    int code = pclose(pipe);
    *status = WIFEXITED(code) ? WEXITSTATUS(code) : 128;
    return output;
}

bool is_word(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

size_t skip_space(const std::string &text, size_t at) {
    while (at < text.size() && isspace(static_cast<unsigned char>(text[at]))) at++;
    return at;
}

// The kernels of a preprocessed source, in which the keywords of CUDA still stand.
std::vector<KernelName> find_kernels(const std::string &text) {
    const std::string keyword = "__global__", bounds = "__launch_bounds__";
    std::vector<KernelName> kernels;
    for (size_t at = 0; (at = text.find(keyword, at)) != std::string::npos;) {
        bool whole = (at == 0 || !is_word(text[at - 1])) && !is_word(text[at + keyword.size()]);
        at += keyword.size();
        if (!whole) continue;
        KernelName kernel{"", "1024"};
        for (size_t here = at; here < text.size();) {
            here = skip_space(text, here);
            size_t end = here;
            while (end < text.size() && is_word(text[end])) end++;
            std::string word = text.substr(here, end - here);
            here = skip_space(text, end);
            if (word.empty() || here >= text.size()) break;
            if (text[here] != '(') continue;
            if (word != bounds) {
                kernel.name = word;
                break;
            }
            size_t depth = 0, comma = 0, open = here;
            for (; here < text.size(); here++) {
                if (text[here] == '(') depth++;
                if (text[here] == ',' && depth == 1 && !comma) comma = here;
                if (text[here] == ')' && --depth == 0) break;
            }
            kernel.max_threads = text.substr(open + 1, (comma ? comma : here) - open - 1);
            here++;
        }
        bool known = kernel.name.empty();
        for (const KernelName &other : kernels) known |= other.name == kernel.name; // a declaration before it
        if (!known) kernels.push_back(kernel);
    }
    return kernels;
}

// `extern __shared__ T name[];` is a pointer here; the line structure stays.
std::string with_dynamic_shared(std::string text) {
    const std::string keyword = "__shared__";
    for (size_t at = 0; (at = text.find("extern", at)) != std::string::npos;) {
        size_t start = at;
        at += 6;
        if (start && is_word(text[start - 1])) continue;
        size_t shared = skip_space(text, at);
        if (text.compare(shared, keyword.size(), keyword) != 0) continue;
        size_t end = text.find(';', shared), bracket = text.find('[', shared);
        if (end == std::string::npos || bracket == std::string::npos || bracket > end) continue;
        size_t name_end = bracket;
        while (isspace(static_cast<unsigned char>(text[name_end - 1]))) name_end--;
        size_t name = name_end;
        while (is_word(text[name - 1])) name--;
        std::string type = text.substr(shared + keyword.size(), name - shared - keyword.size());
        size_t align = type.find("__align__");
        if (align != std::string::npos) type.erase(align, type.find(')', align) + 1 - align);
        std::string replacement = type + "*const " + text.substr(name, name_end - name) + " = (" + type +
                                  "*)spdflow_emulator_dynamic_shared()";
        text.replace(start, end - start, replacement);
        at = start + replacement.size();
    }
    return text;
}

// The options that mean something to a C++ compiler; architecture and the like do not.
std::string host_options(int count, const char *const *options) {
    std::string result;
    for (int i = 0; i < count; i++) {
        std::string option = options[i];
        bool separate = option == "-D" || option == "-U" || option == "-I" || option == "--include-path" ||
                        option == "--define-macro";
        std::string value = separate && i + 1 < count ? options[++i] : "";
        if (separate)
            result += " " + (option[1] == '-' ? (option == "--include-path" ? "-I" : "-D") : option) + quoted(value);
        else if (option.rfind("--define-macro=", 0) == 0)
            result += " -D" + quoted(option.substr(15));
        else if (option.rfind("--include-path=", 0) == 0)
            result += " -I" + quoted(option.substr(15));
        else if (option.rfind("-D", 0) == 0 || option.rfind("-U", 0) == 0 || option.rfind("-I", 0) == 0)
            result += " " + quoted(option);
    }
    return result;
}

Result compile(Program &program, int count, const char *const *options) {
    const char *chosen = getenv("CXX");
    const std::string compiler = chosen && *chosen ? chosen : "c++";
    const std::string folder = cache_folder(), place = home();
    if (folder.empty()) {
        program.log = "no folder for compiled kernels; set SPDFLOW_EMULATOR_CACHE";
        return BUILTIN_OPERATION_FAILURE;
    }
    bool check = is_set("SPDFLOW_EMULATOR_CHECK"), asan = is_set("SPDFLOW_EMULATOR_ASAN");
    std::string flags = " -std=c++17 -O1 -g1 -fPIC -fvisibility=hidden -fno-strict-aliasing -fwrapv -fno-exceptions"
                        " -fno-rtti -ffp-contract=off -w";
#if defined(__x86_64__)
    if (__builtin_cpu_supports("fma")) flags += " -mfma"; // fmaf as one instruction; nothing is contracted
#endif
    if (check) flags += " -fsanitize=thread,bounds,alignment";
    if (asan) flags += " -fsanitize=address -DSPDFLOW_EMULATOR_ASAN=1";
    flags += host_options(count, options) + " -I" + quoted(place + "/include");

    const std::string shim = read_file(place + "/include/shim.h") + read_file(place + "/include/shim_math.h") +
                             read_file(place + "/include/interface.h");
    const std::string base =
        folder + "/" + digest(compiler + '\0' + flags + '\0' + shim + '\0' + program.name + '\0' + program.source);
    const std::string library = base + ".so";
    program.ptx = "// spdflow emulator module\n" + library + "\n";
    if (access(library.c_str(), R_OK) == 0) return SUCCESS;

    // Other processes may compile the same: everything is made under a name of this process and renamed.
    const std::string mine = base + "." + std::to_string(getpid()), source = mine + ".cu";
    if (!write_file(source, with_dynamic_shared(program.source))) {
        program.log = "cannot write " + source;
        return BUILTIN_OPERATION_FAILURE;
    }
    int status;
    std::string preprocessed =
        run(compiler + " -x c++ -E -P" + host_options(count, options) + " " + quoted(source), &status);
    std::string unit = "#include \"shim.h\"\nnamespace {\n#include \"" + source +
                       "\"\n}\nextern \"C\" __attribute__((visibility(\"default\")))\n"
                       "const spdflow_emulator_kernel spdflow_emulator_kernels[] = {\n";
    for (const KernelName &kernel : find_kernels(preprocessed))
        unit += "SPDFLOW_EMULATOR_KERNEL(" + kernel.name + ", " + kernel.max_threads + "),\n";
    unit += "{nullptr, nullptr, 0}};\n";
    const std::string wrapped = mine + ".cpp", object = mine + ".o";
    write_file(wrapped, unit);
    program.log = run(compiler + flags + " -c " + quoted(wrapped) + " -o " + quoted(object), &status);
    if (status == 0) {
        // Without the sanitizer's library: the driver has the functions that the instrumentation calls.
        program.log += run(compiler + (asan ? " -fsanitize=address" : "") + " -shared " + quoted(object) + " -o " +
                               quoted(mine + ".so") + " -L" + quoted(place + "/lib") + " -l:libcuda.so.1 -lm",
                           &status);
    }
    unlink(wrapped.c_str());
    unlink(object.c_str());
    for (size_t at; (at = program.log.find(source)) != std::string::npos;)
        program.log.replace(at, source.size(), program.name);
    if (status != 0) {
        unlink(source.c_str());
        unlink((mine + ".so").c_str());
        program.ptx.clear();
        return COMPILATION;
    }
    if (rename(source.c_str(), (base + ".cu").c_str()) || rename((mine + ".so").c_str(), library.c_str())) {
        program.log = "cannot rename into " + library;
        return BUILTIN_OPERATION_FAILURE;
    }
    return SUCCESS;
}

} // namespace

extern "C" {
const char *nvrtcGetErrorString(int result) {
    switch (result) {
    case SUCCESS: return "NVRTC_SUCCESS";
    case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case COMPILATION: return "NVRTC_ERROR_COMPILATION";
    case BUILTIN_OPERATION_FAILURE: return "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE";
    default: return "NVRTC_ERROR unknown";
    }
}

int nvrtcVersion(int *major, int *minor) {
    *major = 12;
    *minor = 0;
    return SUCCESS;
}

int nvrtcGetNumSupportedArchs(int *count) {
    *count = 2;
    return SUCCESS;
}

int nvrtcGetSupportedArchs(int *architectures) {
    architectures[0] = 80;
    architectures[1] = 90;
    return SUCCESS;
}

int nvrtcCreateProgram(Program **program, const char *source, const char *name, int headers, const char *const *,
                       const char *const *) {
    if (!program || !source || headers) return INVALID_INPUT;
    *program = new Program{source, name && *name ? name : "default_program", "", ""};
    return SUCCESS;
}

int nvrtcDestroyProgram(Program **program) {
    if (!program || !*program) return INVALID_PROGRAM;
    delete *program; // the handle is left as it is: callers may pass the address of a constant
    return SUCCESS;
}

int nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    if (!program) return INVALID_PROGRAM;
    // One at a time in a process: its threads would use the same file names, and often compile the same source.
    static std::mutex lock;
    std::lock_guard<std::mutex> guard(lock);
    return compile(*program, count, options);
}

int nvrtcGetPTXSize(Program *program, size_t *size) {
    if (!program) return INVALID_PROGRAM;
    *size = program->ptx.size() + 1;
    return SUCCESS;
}

int nvrtcGetPTX(Program *program, char *ptx) {
    if (!program) return INVALID_PROGRAM;
    memcpy(ptx, program->ptx.c_str(), program->ptx.size() + 1);
    return SUCCESS;
}

int nvrtcGetProgramLogSize(Program *program, size_t *size) {
    if (!program) return INVALID_PROGRAM;
    *size = program->log.size() + 1;
    return SUCCESS;
}

int nvrtcGetProgramLog(Program *program, char *log) {
    if (!program) return INVALID_PROGRAM;
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return SUCCESS;
}
}
