// Whole files in and out.
#pragma once

#include <string>

#include "failure.h"

namespace runner {

// The file's bytes, read once; `code` is what a file that is missing or cannot be read ends the program with.
std::string read_file(const std::string& path, ExitCode code);

// The same for the system's own files (/proc), whose size is not known before.
std::string read_special_file(const std::string& path);

// Writes beside the file and renames, so that nothing half written is left.
void write_file(const std::string& path, const std::string& bytes);

bool is_file(const std::string& path);
std::string folder_of(const std::string& path);

}  // namespace runner
