// A model run for minutes without a pause, in windows, with the device's heat and clock beside its latency.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "conditions.h"
#include "model.h"

namespace runner {

struct SustainedPlan {
    double seconds = 0;  // 0: no sustained run
    double window_seconds = 10;
};

struct Window {
    std::int64_t start_ns;  // since the beginning
    std::int64_t wall_ns;   // how long it lasted
    std::int64_t inferences;
    double p50_ns, p90_ns;
    double cpu_ns;           // median of an inference, all threads
    std::int64_t waited_ns;  // ready to run without a processor; -1: the system does not tell
    Conditions conditions;   // at its end
};

struct Sustained {
    std::vector<Window> windows;
    std::int64_t inferences = 0;  // all of them, also those that were not timed
};

// The model has its inputs and has made a first inference.
Sustained run_sustained(Model& model, const std::function<Conditions()>& look, const SustainedPlan& plan);

}  // namespace runner
