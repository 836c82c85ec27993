#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace runner {
namespace {

class Descriptor {
public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor() {
        if (number_ >= 0) close(number_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int number() const { return number_; }

private:
    int number_;
};

}  // namespace

std::string read_file(const std::string& path, ExitCode code) {
    const auto fail = [&](int number) { throw Failure(code, path + " cannot be read: " + std::strerror(number)); };
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat facts {};
    if (file.number() < 0 || fstat(file.number(), &facts) != 0) fail(errno);
    if (!S_ISREG(facts.st_mode)) throw Failure(code, path + " is no regular file.");
    std::string bytes(static_cast<std::size_t>(facts.st_size), '\0');
    std::size_t have = 0;
    while (have < bytes.size()) {
        const ssize_t count = read(file.number(), &bytes[have], bytes.size() - have);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail(errno);
        if (count == 0) break;
        have += static_cast<std::size_t>(count);
    }
    bytes.resize(have);
    return bytes;
}

std::string read_special_file(const std::string& path) {
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.number() < 0) throw Failure(kNotSupported, path + " cannot be read: " + std::strerror(errno));
    std::string bytes;
    char block[4096];
    for (ssize_t count = 1; count > 0;) {
        count = read(file.number(), block, sizeof block);
        if (count > 0) bytes.append(block, static_cast<std::size_t>(count));
    }
    return bytes;
}

void write_file(const std::string& path, const std::string& bytes) {
    const std::string partial = path + ".partial";
    const auto fail = [&](int number) {
        unlink(partial.c_str());
        throw Failure(kUsage, path + " cannot be written: " + std::strerror(number));
    };
    {
        const Descriptor file(open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        if (file.number() < 0) fail(errno);
        std::size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t count = write(file.number(), bytes.data() + done, bytes.size() - done);
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) fail(errno);
            done += static_cast<std::size_t>(count);
        }
    }
    if (std::rename(partial.c_str(), path.c_str()) != 0) fail(errno);
}

bool is_file(const std::string& path) {
    struct stat facts {};
    return stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode);
}

std::string folder_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

}  // namespace runner
