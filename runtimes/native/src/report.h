// The JSON document that says what was found.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arguments.h"
#include "conditions.h"
#include "json.h"
#include "model.h"
#include "rounds.h"
#include "samples.h"
#include "sustained.h"
#include "timing.h"

namespace runner {

// A model timed beside the first one.
struct OtherFacts {
    std::string path;
    std::string sha256;
};

// The second load in one process, and the memory that the first one and three inferences needed at most.
struct Reload {
    std::int64_t load_ns;
    std::int64_t load_cpu_ns;
    std::int64_t memory_bytes;
};

struct Report {
    std::string model_sha256;
    std::size_t model_size_bytes = 0;
    std::int64_t load_ns = 0;
    std::int64_t load_cpu_ns = 0;
    std::int64_t memory_before_load_bytes = 0;
    std::int64_t memory_after_load_bytes = 0;
    std::optional<Reload> reload;
    std::optional<std::int64_t> first_inference_ns;
    std::size_t sample_count = 0;
    std::vector<std::string> input_sha256;
    std::vector<OutputFacts> outputs;
    std::optional<Timing> timing;
    std::optional<Audit> audit;
    std::vector<OtherFacts> beside;
    std::optional<Rounds> rounds;
    std::optional<Sustained> sustained;
    std::optional<double> cached_share;  // of the model's file when it was loaded, cold
    std::optional<Conditions> before, after;  // the timing
    std::int64_t timed_wall_ns = 0, timed_cpu_ns = 0;
};

void write_timing(const Timing& timing, Json* json);
std::string document(const Arguments& arguments, const Model& model, const Report& report);

extern const char kVersion[];

}  // namespace runner
