// The JSON document that says what was found.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arguments.h"
#include "json.h"
#include "model.h"
#include "timing.h"

namespace runner {

struct OutputFacts {
    std::string sha256;  // of the values in C order, little-endian, samples one after the other
    Shape shape;
    std::string file;  // empty where it was not written
};

struct Report {
    std::string model_sha256;
    std::size_t model_size_bytes = 0;
    std::int64_t load_ns = 0;
    std::int64_t memory_after_load_bytes = 0;
    std::optional<std::int64_t> first_inference_ns;
    std::size_t sample_count = 0;
    std::vector<std::string> input_sha256;
    std::vector<OutputFacts> outputs;
    std::optional<Timing> timing;
    std::optional<Audit> audit;
};

void write_timing(const Timing& timing, Json* json);
std::string document(const Arguments& arguments, const Model& model, const Report& report);

extern const char kVersion[];

}  // namespace runner
