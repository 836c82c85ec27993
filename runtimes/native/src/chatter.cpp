#include "chatter.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cctype>

namespace runner {
namespace {

constexpr std::size_t kLimit = 4000;

int open_scratch_file() {
    const char* folder = std::getenv("TMPDIR");
    std::string path = std::string(folder == nullptr ? "/tmp" : folder) + "/edgekit-runner-XXXXXX";
    const int file = mkstemp(path.data());
    if (file >= 0) {
        unlink(path.c_str());
        fcntl(file, F_SETFD, FD_CLOEXEC);
    }
    return file;
}

}  // namespace

Chatter::Chatter() : file_(open_scratch_file()) {
    if (file_ < 0) return;  // nowhere to keep it: it is shown
    std::fflush(stderr);
    kept_ = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (kept_ >= 0) dup2(file_, STDERR_FILENO);
}

Chatter::~Chatter() {
    std::fflush(stderr);
    if (kept_ >= 0) {
        dup2(kept_, STDERR_FILENO);
        close(kept_);
    }
    if (file_ >= 0) close(file_);
}

std::string Chatter::words() const {
    std::fflush(stderr);
    std::string bytes(kLimit, '\0');
    const ssize_t count = file_ < 0 ? 0 : pread(file_, bytes.data(), bytes.size(), 0);
    bytes.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
    std::string line;
    for (const char letter : bytes) {
        const bool is_space = std::isspace(static_cast<unsigned char>(letter)) != 0;
        if (!is_space || (!line.empty() && line.back() != ' ')) line += is_space ? ' ' : letter;
    }
    return line.empty() ? "." : ": " + line;
}

}  // namespace runner
