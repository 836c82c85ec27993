#include "files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

namespace runner {

Descriptor::~Descriptor() {
    if (number_ >= 0) close(number_);
}

Descriptor::Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}

FileReader::FileReader(const std::string& path, ExitCode code)
    : path_(path), code_(code), file_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat facts {};
    if (file_.number() < 0 || fstat(file_.number(), &facts) != 0)
        throw Failure(code_, path_ + " cannot be read: " + std::strerror(errno));
    if (!S_ISREG(facts.st_mode)) throw Failure(code_, path_ + " is no regular file.");
    size_ = static_cast<std::size_t>(facts.st_size);
}

void FileReader::read(std::size_t offset, void* bytes, std::size_t count) const {
    auto* place = static_cast<char*>(bytes);
    while (count > 0) {
        const ssize_t have = pread(file_.number(), place, count, static_cast<off_t>(offset));
        if (have < 0 && errno == EINTR) continue;
        if (have < 0) throw Failure(code_, path_ + " cannot be read: " + std::strerror(errno));
        if (have == 0) throw Failure(code_, path_ + " was cut short while it was read.");
        place += have;
        offset += static_cast<std::size_t>(have);
        count -= static_cast<std::size_t>(have);
    }
}

FileWriter::FileWriter(const std::string& path)
    : path_(path), file_(open((path + ".partial").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (file_.number() < 0) fail(errno);
}

FileWriter::~FileWriter() {
    if (!is_finished_) unlink((path_ + ".partial").c_str());
}

void FileWriter::add(const void* bytes, std::size_t count) {
    const auto* place = static_cast<const char*>(bytes);
    while (count > 0) {
        const ssize_t done = write(file_.number(), place, count);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) fail(errno);
        place += done;
        count -= static_cast<std::size_t>(done);
    }
}

void FileWriter::finish() {
    if (std::rename((path_ + ".partial").c_str(), path_.c_str()) != 0) fail(errno);
    is_finished_ = true;
}

void FileWriter::fail(int number) const { throw Failure(kUsage, path_ + " cannot be written: " + std::strerror(number)); }

std::string read_file(const std::string& path, ExitCode code) {
    const FileReader file(path, code);
    std::string bytes(file.size(), '\0');
    file.read(0, bytes.data(), bytes.size());
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
    FileWriter file(path);
    file.add(bytes.data(), bytes.size());
    file.finish();
}

double drop_from_cache(const std::string& path) {
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat facts {};
    if (file.number() < 0 || fstat(file.number(), &facts) != 0 || facts.st_size == 0) return -1;
    fsync(file.number());  // pages that are not on the disk yet cannot be dropped
    posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED);
    const auto size = static_cast<std::size_t>(facts.st_size), page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    void* mapped = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.number(), 0);
    if (mapped == MAP_FAILED) return -1;
    std::vector<unsigned char> states((size + page - 1) / page);
    const bool is_told = mincore(mapped, size, states.data()) == 0;
    munmap(mapped, size);
    const auto held = std::count_if(states.begin(), states.end(), [](unsigned char state) { return (state & 1) != 0; });
    return is_told ? static_cast<double>(held) / static_cast<double>(states.size()) : -1;
}

bool is_file(const std::string& path) {
    struct stat facts {};
    return stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode);
}

void make_folder(const std::string& path) {
    if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
        throw Failure(kUsage, path + " cannot be made: " + std::strerror(errno));
}

std::string folder_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

}  // namespace runner
