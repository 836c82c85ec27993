#include "library.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <utility>

#include "failure.h"
#include "files.h"

namespace runner {
namespace {

std::string reason() {
    const char* words = dlerror();
    return words == nullptr ? "no reason given" : words;
}

std::string own_folder() {
    std::string path(4096, '\0');
    const ssize_t length = readlink("/proc/self/exe", path.data(), path.size());
    return length <= 0 ? "./" : folder_of(path.substr(0, static_cast<std::size_t>(length)));
}

}  // namespace

Library::Library(const std::string& path) : handle_(nullptr), path_(path) {
    if (!is_file(path)) throw Failure(kUsage, "there is no library " + path + ". Give --library a file that is there.");
    // A name without a slash would be looked for elsewhere.
    const std::string exact = path.find('/') == std::string::npos ? "./" + path : path;
    handle_ = dlopen(exact.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) throw Failure(kNotSupported, path + " cannot be loaded as a library here: " + reason());
    locate();
}

Library::Library(void* handle, const std::string& path) : handle_(handle), path_(path) { locate(); }

Library::Library(Library&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)), path_(std::move(other.path_)) {}

Library Library::find(const std::vector<std::string>& names, const std::string& runtime) {
    const std::string beside = own_folder();
    std::string tried;
    for (const auto& name : names) {
        const std::string path = beside + name;
        if (is_file(path)) return Library(path);
        if (void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL); handle != nullptr) return Library(handle, name);
        tried += (tried.empty() ? "" : ", ") + name;
    }
    throw Failure(kUsage, "no library of " + runtime + " was found: looked for " + tried + " in " + beside +
                              " and where the system looks (LD_LIBRARY_PATH, ld.so.conf). Give its path with --library PATH.");
}

bool Library::has(const char* name) const { return dlsym(handle_, name) != nullptr; }

void* Library::address(const char* name) const {
    void* found = dlsym(handle_, name);
    if (found == nullptr)
        throw Failure(kNotSupported, path_ + " has no function " + name + ": it is another library, or another version of it.");
    return found;
}

void Library::locate() {
    struct link_map* map = nullptr;
    if (dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 && map != nullptr && map->l_name != nullptr && map->l_name[0] != '\0')
        path_ = map->l_name;
}

}  // namespace runner
