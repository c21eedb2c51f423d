// Modules: shared libraries that nvrtc.cpp compiled, named by the text that stands for PTX.
//
// Shared arrays are found in the library's symbol table: they are the symbols of the section .spdflow_shared, and their
// C++ names say which function declares them (`transpose::tile`).
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

#include "runtime.h"

namespace emulator {
namespace {

const char *const MARK = "// spdflow emulator module\n";
const char *const RED_ZONE_PREFIX = "spdflow_shared_";

std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string demangled(const char *name) {
    int status;
    char *text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
    std::string result = text ? text : name;
    free(text);
    const std::string unnamed = "(anonymous namespace)::";
    for (size_t at; (at = result.find(unnamed)) != std::string::npos;) result.erase(at, unnamed.size());
    return result;
}

void find_shared_arrays(Module *module, uintptr_t base) {
    std::string image = read_file(module->path);
    const auto *header = reinterpret_cast<const ElfW(Ehdr) *>(image.data());
    const auto *sections = reinterpret_cast<const ElfW(Shdr) *>(image.data() + header->e_shoff);
    const char *section_names = image.data() + sections[header->e_shstrndx].sh_offset;
    unsigned shared = 0;
    const ElfW(Shdr) *symbols = nullptr;
    for (unsigned i = 0; i < header->e_shnum; i++) {
        if (!strcmp(section_names + sections[i].sh_name, ".spdflow_shared")) shared = i;
        if (sections[i].sh_type == SHT_SYMTAB) symbols = &sections[i];
    }
    if (!shared || !symbols) return;
    module->shared_start = base + sections[shared].sh_addr;
    module->shared_end = module->shared_start + sections[shared].sh_size;
    const char *names = image.data() + sections[symbols->sh_link].sh_offset;
    const auto *symbol = reinterpret_cast<const ElfW(Sym) *>(image.data() + symbols->sh_offset);
    for (size_t i = 0; i < symbols->sh_size / sizeof *symbol; i++) {
        if (symbol[i].st_shndx != shared || symbol[i].st_size == 0) continue;
        SharedArray array{base + symbol[i].st_value, symbol[i].st_size, demangled(names + symbol[i].st_name), "",
                          false};
        size_t separator = array.name.rfind("::");
        if (separator != std::string::npos) {
            array.owner = array.name.substr(0, separator);
            array.name.erase(0, separator + 2);
        }
        if (array.name.rfind(RED_ZONE_PREFIX, 0) == 0) {
            array.name.erase(0, strlen(RED_ZONE_PREFIX));
            array.red_zone = true;
        }
        module->shared.push_back(array);
    }
}

// The function in an owner like `sum<64>(float*)`, which is how a demangled name of a kernel's variable begins.
bool owned_by(const SharedArray &array, const char *kernel) {
    size_t length = strlen(kernel);
    return array.owner.compare(0, length, kernel) == 0 && (array.owner.size() == length || array.owner[length] == '(');
}

bool owned_by_a_kernel(const SharedArray &array, const spdflow_emulator_kernel *table) {
    for (; table->name; table++)
        if (owned_by(array, table->name)) return true;
    return false;
}

int find_extent(struct dl_phdr_info *info, size_t, void *data) {
    auto *module = static_cast<Module *>(data);
    if (!info->dlpi_name || module->path != info->dlpi_name) return 0;
    module->start = ~uintptr_t(0);
    module->end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD) continue;
        uintptr_t from = info->dlpi_addr + segment.p_vaddr, to = from + segment.p_memsz;
        if (from < module->start) module->start = from;
        if (to > module->end) module->end = to;
    }
    return 1;
}

} // namespace

Result load_module(const std::string &image, Module **result) {
    if (image.rfind(MARK, 0) != 0) return INVALID_IMAGE; // real PTX, for example of other kernels of the program
    auto *module = new Module{};
    module->path = image.substr(strlen(MARK), image.find('\n', strlen(MARK)) - strlen(MARK));
    module->library = dlopen(module->path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!module->library) {
        fprintf(stderr, "emulator: cannot load a module: %s\n", dlerror());
        delete module;
        return FILE_NOT_FOUND;
    }
    const auto *table =
        static_cast<const spdflow_emulator_kernel *>(dlsym(module->library, "spdflow_emulator_kernels"));
    struct link_map *map = nullptr;
    dlinfo(module->library, RTLD_DI_LINKMAP, &map);
    dl_iterate_phdr(find_extent, module);
    find_shared_arrays(module, map->l_addr);
    for (const auto *entry = table; entry->name; entry++) {
        auto *kernel = new Kernel{entry, module, 0, {}, 0};
        for (const SharedArray &array : module->shared) {
            // Arrays of functions that kernels call could be any kernel's.
            if (owned_by(array, entry->name))
                kernel->shared_bytes += array.size - (array.red_zone ? 2 * SHARED_RED_ZONE : 0);
            else if (owned_by_a_kernel(array, table))
                continue;
            kernel->shared.push_back(&array);
        }
        module->kernels.push_back(kernel);
    }
    *result = module;
    return SUCCESS;
}

Result unload_module(Module *module) {
    for (Kernel *kernel : module->kernels) delete kernel;
    dlclose(module->library);
    delete module;
    return SUCCESS;
}

// Asks addr2line, which comes with the linker; only findings need it.
std::string source_line(const Module *module, uintptr_t address) {
    Dl_info info;
    if (!dladdr(reinterpret_cast<void *>(address), &info) || !info.dli_fbase) return "";
    static std::map<std::string, std::string> known;
    char command[1024];
    snprintf(command, sizeof command, "LD_PRELOAD= addr2line -i -e '%s' %#zx 2>/dev/null", module->path.c_str(),
             size_t(address - 1 - reinterpret_cast<uintptr_t>(info.dli_fbase)));
    auto found = known.find(command);
    if (found != known.end()) return found->second;
    std::string &result = known[command];
    FILE *pipe = popen(command, "r");
    if (!pipe) return result;
    // The innermost of the inlined calls that is a line of the source, which lies beside the library: not one of the
    // shim, nor one that #line takes elsewhere.
    const std::string base = module->path.substr(0, module->path.size() - 3);
    char place[1024];
    unsigned line = 0;
    while (fgets(place, sizeof place, pipe)) {
        const char *colon = strrchr(place, ':');
        if (!line && colon && strncmp(place, base.c_str(), base.size()) == 0) line = unsigned(atoi(colon + 1));
    }
    pclose(pipe);
    if (!line) return result;
    std::ifstream source(base + ".cu");
    std::string text;
    for (unsigned i = 0; i < line && std::getline(source, text); i++) continue;
    size_t start = text.find_first_not_of(" \t");
    return result =
               ", line " + std::to_string(line) + ": `" + (start == std::string::npos ? "" : text.substr(start)) + "`";
}

} // namespace emulator
