// libnvrtc.so.12: compiles a CUDA source for the CPU, with this machine's C++ compiler.
//
// Its "PTX" is the path of a library with a `Kernel` for each kernel, made once for each text in a folder of the user's.
// SPDFLOW_EMULATOR_CHECK=0 leaves out the checker, for long runs.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <regex>
#include <sstream>
#include <string>
#include <unistd.h>

namespace fs = std::filesystem;

struct Program {
    std::string source, log, result;
};

static std::string variable(const char *name, const std::string &otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

// What the compiler gets: the shim, the kernels, and how to call each of them.
static std::string whole(const std::string &source) {
    std::string text = "#include \"shim.h\"\n#line 1 \"kernels.cu\"\n" + source + "\n";
    std::regex pattern("__global__\\s+void\\s+(?:__launch_bounds__\\((\\d+)[^)]*\\)\\s*)?(\\w+)\\s*\\(");
    for (std::sregex_iterator found(source.begin(), source.end(), pattern), end; found != end; ++found) {
        std::string name = (*found)[2], limit = (*found)[1].matched ? (*found)[1].str() : "1024";
        text += "static bool launch_" + name + "(dim3 g, dim3 b, void **p, uint64_t n, const Services *s) { return machine::launch(\"" +
                name + "\", " + name + ", g, b, p, n, s); }\n" + "extern \"C\" Kernel kernel_" + name + " = {launch_" + name +
                ", " + limit + "};\n";
    }
    return text;
}

extern "C" {
// Whoever keeps results keeps them apart by version: of each build of the emulator, and with or without the checker.
int nvrtcVersion(int *major, int *minor) {
    std::string build = EMULATOR_BUILD + variable("SPDFLOW_EMULATOR_CHECK", "1");
    *major = 0, *minor = int(std::hash<std::string>()(build) % 1000000);
    return 0;
}

int nvrtcCreateProgram(Program **program, const char *source, const char *, int, const char *const *, const char *const *) {
    *program = new Program{source, "", ""};
    return 0;
}

int nvrtcDestroyProgram(Program **program) {
    delete *program;
    *program = nullptr;
    return 0;
}

int nvrtcCompileProgram(Program *program, int, const char *const *) {
    static std::atomic<int> count{0};
    static std::mutex lock; // several threads want the same kernels: one makes them
    std::lock_guard<std::mutex> guard(lock);
    bool is_checked = variable("SPDFLOW_EMULATOR_CHECK", "1") != "0";
    std::string home = EMULATOR_HOME, text = whole(program->source);
    fs::path folder = variable("SPDFLOW_EMULATOR_CACHE", (fs::temp_directory_path() / ("spdflow-emulator-" + std::to_string(getuid()))).string());
    fs::create_directories(folder);
    std::string key = std::to_string(std::hash<std::string>()(text + EMULATOR_BUILD)) + (is_checked ? "-checked" : "");
    fs::path library = folder / (key + ".so"), base = folder / (key + "." + std::to_string(getpid()) + "-" + std::to_string(count++));
    program->result = library.string();
    if (fs::exists(library)) return 0;
    std::ofstream(base.string() + ".cpp") << text;
    // Vector loads that the compiler makes up would hide how many bytes a kernel reads at once.
    std::string command = variable("CXX", "c++") + " -std=c++17 -O1 -g1 -w -fPIC -fno-tree-vectorize -fno-tree-slp-vectorize -I'" + home + "' " +
                          (is_checked ? "-fsanitize=thread " : "") + "-c '" + base.string() + ".cpp' -o '" + base.string() + ".o' 2>'" +
                          base.string() + ".log' && " + variable("CXX", "c++") + " -shared '" + base.string() + ".o' '" + home +
                          "/checker.o' -o '" + base.string() + ".so' 2>>'" + base.string() + ".log'";
    int status = system(command.c_str());
    std::stringstream log;
    log << std::ifstream(base.string() + ".log").rdbuf();
    program->log = log.str();
    std::error_code ignored;
    if (status == 0) fs::rename(base.string() + ".so", library, ignored);
    for (const char *end : {".cpp", ".o", ".log"}) fs::remove(base.string() + end, ignored);
    return status == 0 ? 0 : 6; // NVRTC_ERROR_COMPILATION
}

int nvrtcGetPTXSize(Program *program, size_t *size) {
    *size = program->result.size() + 1;
    return 0;
}
int nvrtcGetPTX(Program *program, char *to) {
    memcpy(to, program->result.c_str(), program->result.size() + 1);
    return 0;
}
int nvrtcGetProgramLogSize(Program *program, size_t *size) {
    *size = program->log.size() + 1;
    return 0;
}
int nvrtcGetProgramLog(Program *program, char *to) {
    memcpy(to, program->log.c_str(), program->log.size() + 1);
    return 0;
}
const char *nvrtcGetErrorString(int) { return "the emulated compiler failed"; }
}
