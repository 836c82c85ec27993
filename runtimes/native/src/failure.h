// What goes wrong on purpose: a message that says what was found and what to do, and the exit code it ends the program with.
#pragma once

#include <stdexcept>
#include <string>

namespace runner {

// The exit codes of edgekit's command line.
enum ExitCode : int {
    kUsage = 2,         // what was asked for cannot be read, or is not there
    kNotSupported = 3,  // the library or the model needs something that is not supported
    kIntegrity = 5,     // the model file is damaged or foreign
    kBug = 70,
};

class Failure : public std::runtime_error {
public:
    Failure(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
    ExitCode code() const { return code_; }

private:
    ExitCode code_;
};

}  // namespace runner
