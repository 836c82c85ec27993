// Several models timed in turn, as edgekit's Python agent does it (device_tests/rounds.py): in rounds, a block of inferences of
// each, the next round the other way round, so that what disturbs the machine disturbs all of them; and over several loads of the
// models, because where a model's memory lies is worth a percent or more and stays until it is loaded anew.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model.h"

namespace runner {

struct RoundsPlan {
    std::int64_t fewest = 0;      // rounds made in any case, all loads together; 0: no rounds
    double seconds = 0;           // after so long no new round begins
    double block_seconds = 0.02;  // how long a block should last
    std::int64_t loads = 1;       // how often models are loaded at most: that takes a quarter of `seconds`, or happens once
};

struct Block {
    std::vector<std::int64_t> wall_ns, cpu_ns;  // of each inference
    std::int64_t preemptions = 0;
    std::int64_t waited_ns = -1;  // ready to run without a processor; -1: the system does not tell
};

// How many inferences last so long; the model has made its first inference.
std::int64_t choose_length(Model& model, double seconds);

// One inference that is not counted, because the other models' data are in the caches, and then `length` that are.
Block take_block(Model& model, std::int64_t length);

// What a model's blocks hold, one block a round.
struct Series {
    std::vector<std::int64_t> wall_ns, cpu_ns;  // of each inference, in order
    std::vector<std::int64_t> lengths;          // inferences of each block
    std::vector<std::int64_t> waited_ns;        // of each block
    std::int64_t preemptions = 0;
};

struct Rounds {
    std::vector<Series> series;              // one a model
    std::vector<std::int64_t> loads;         // of each round: which load of the models
    std::vector<std::int64_t> clocks_khz;    // of each round: mean of the processors' clocks; -1: the system does not tell
    bool is_precise = false;                 // ended because every median is known to ±1 % (95 %)
};

// `open` loads all models, the last one first where it is called with true, and leaves them with inputs and a first inference.
Rounds time_rounds(const std::function<std::vector<Model*>(bool)>& open, const std::function<std::int64_t()>& clock_khz,
                   const RoundsPlan& plan);

}  // namespace runner
