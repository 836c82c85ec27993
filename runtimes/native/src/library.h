// A shared library opened at run time, so that the program itself links no runtime.
#pragma once

#include <string>
#include <vector>

namespace runner {

class Library {
public:
    // Opens a library by path. Exit code 2 where it is not there, 3 where the system cannot load it.
    explicit Library(const std::string& path);

    // Opens the first of some file names, looked for beside this program and where the system looks.
    static Library find(const std::vector<std::string>& names, const std::string& runtime);

    Library(Library&& other) noexcept;
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;
    Library& operator=(Library&&) = delete;

    // Libraries stay open until the process ends: runtimes leave threads and exit handlers behind.
    ~Library() = default;

    const std::string& path() const { return path_; }  // where it really is
    bool has(const char* name) const;

    template <typename Function>
    Function symbol(const char* name) const {
        return reinterpret_cast<Function>(address(name));
    }

    // The same, or null where the library has no such function.
    template <typename Function>
    Function symbol_or_null(const char* name) const {
        return has(name) ? symbol<Function>(name) : nullptr;
    }

private:
    Library(void* handle, const std::string& path);
    void* address(const char* name) const;
    void locate();

    void* handle_;
    std::string path_;
};

}  // namespace runner
