// Times inferences, and what the timing itself costs.
#pragma once

#include <cstdint>
#include <vector>

#include "model.h"

namespace runner {

struct TimingPlan {
    std::int64_t warm_up = 0;
    std::int64_t repeat = 0;  // samples at most; 0: as many as fit in `seconds`
    double seconds = 0;       // 0: no limit but `repeat`
    bool is_wanted() const { return repeat > 0 || seconds > 0; }
};

struct Timing {
    std::vector<std::int64_t> wall_ns;  // one a sample, in order
    std::vector<std::int64_t> cpu_ns;   // the same; empty where reading that clock would cost more than 1/200 of an inference
    std::int64_t total_wall_ns = 0;
    std::int64_t total_cpu_ns = 0;
    std::int64_t preemptions = 0;
    std::int64_t waits = 0;
};

// What reading each clock costs here: the median of many.
struct ClockCost {
    std::int64_t wall_ns;
    std::int64_t cpu_ns;
};
ClockCost clock_cost();

Timing time_inferences(Model& model, const TimingPlan& plan);

// Blocks of inferences in a bare loop and in the loop that samples, in turn.
struct Audit {
    std::int64_t inferences;  // in a block
    std::vector<std::int64_t> bare_wall_ns, sampled_wall_ns;  // of whole blocks
    std::vector<std::int64_t> bare_cpu_ns, sampled_cpu_ns;
    std::vector<std::int64_t> reported_ns;  // sum of the samples of a block: what is said of it
};
Audit audit_overhead(Model& model, std::int64_t pairs);

double percentile(const std::vector<std::int64_t>& ordered, double percent);  // linear interpolation, as numpy's

}  // namespace runner
