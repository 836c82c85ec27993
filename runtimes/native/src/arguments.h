// The command line.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model.h"
#include "timing.h"

namespace runner {

struct Arguments {
    std::string model;
    Options options;
    std::vector<std::pair<std::string, std::string>> inputs;  // name and .npy file
    std::string output_folder;  // empty: outputs are hashed, not written
    std::string report;         // empty: standard output
    std::string affinity;
    TimingPlan plan;
    std::int64_t audit_pairs = 0;
    bool is_stacked = false;
    bool only_describe = false;
    bool serves = false;
    bool wants_help = false;
    bool wants_version = false;
};

extern const char kHelp[];
Arguments parse_arguments(int count, const char* const* words);

}  // namespace runner
