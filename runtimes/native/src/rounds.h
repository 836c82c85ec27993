// Several models timed in turn, as edgekit's Python agent does it (device_tests/measurement.py): in rounds, a block of inferences
// of each, the next round the other way round, so that what disturbs the machine disturbs all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "model.h"

namespace runner {

struct RoundsPlan {
    std::int64_t fewest = 0;        // rounds made in any case; 0: no rounds
    double seconds = 0;             // after so long no new round begins
    double block_seconds = 0.02;    // how long a block should last
    bool ends_when_precise = true;  // or as soon as every median is known to ±1 % (95 %)
};

struct Series {
    std::int64_t inferences_in_block = 0;
    std::vector<std::int64_t> wall_ns, cpu_ns, round;  // one a sample, in order
    std::int64_t preemptions = 0;
};

struct Rounds {
    std::vector<Series> series;  // one a model
    std::int64_t made = 0;
    bool is_precise = false;
};

// The models have their inputs and have made a first inference.
Rounds time_rounds(const std::vector<Model*>& models, const RoundsPlan& plan);

}  // namespace runner
