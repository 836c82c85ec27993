// The command line.
#pragma once

#include <string>
#include <vector>

#include "model.h"
#include "rounds.h"
#include "samples.h"
#include "sustained.h"
#include "timing.h"

namespace runner {

struct OtherModel {
    std::string path;
    Given inputs;
};

struct Arguments {
    std::string model;
    Options options;
    Given inputs;
    std::vector<OtherModel> beside;  // timed in turn with the first
    std::string output_folder;  // empty: outputs are hashed, not written
    std::string report;         // empty: standard output
    std::string affinity;
    TimingPlan plan;
    RoundsPlan rounds;
    std::int64_t audit_pairs = 0;
    std::string system = "/sys";
    std::int64_t memory_limit_bytes = 0;  // 0: none
    SustainedPlan sustained;
    bool loads_again = false;
    bool is_cold = false;
    bool is_stacked = false;
    bool only_describe = false;
    bool serves = false;
    bool wants_help = false;
    bool wants_version = false;
};

extern const char kHelp[];
Arguments parse_arguments(int count, const char* const* words);

}  // namespace runner
