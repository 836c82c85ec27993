// Whole files in and out.
#pragma once

#include <cstddef>
#include <string>

#include "failure.h"

namespace runner {

class Descriptor {
public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor();
    Descriptor(Descriptor&& other) noexcept;
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int number() const { return number_; }

private:
    int number_;
};

// A regular file that is read where one wants; `code` is what a file that is missing or cannot be read ends the program with.
class FileReader {
public:
    FileReader(const std::string& path, ExitCode code);
    std::size_t size() const { return size_; }
    void read(std::size_t offset, void* bytes, std::size_t count) const;

private:
    std::string path_;
    ExitCode code_;
    Descriptor file_;
    std::size_t size_ = 0;
};

// Writes beside the file and renames in the end, so that nothing half written is left.
class FileWriter {
public:
    explicit FileWriter(const std::string& path);
    ~FileWriter();
    FileWriter(const FileWriter&) = delete;
    FileWriter& operator=(const FileWriter&) = delete;
    void add(const void* bytes, std::size_t count);
    void finish();

private:
    [[noreturn]] void fail(int number) const;

    std::string path_;
    Descriptor file_;
    bool is_finished_ = false;
};

// The file's bytes, read once; `code` is what a file that is missing or cannot be read ends the program with.
std::string read_file(const std::string& path, ExitCode code);

// The same for the system's own files (/proc), whose size is not known before.
std::string read_special_file(const std::string& path);

void write_file(const std::string& path, const std::string& bytes);

// Asks the system to forget a file's pages; the share of them that is still in memory, or -1 where it does not tell.
double drop_from_cache(const std::string& path);

bool is_file(const std::string& path);
void make_folder(const std::string& path);  // fails but where it is there already
std::string folder_of(const std::string& path);

}  // namespace runner
