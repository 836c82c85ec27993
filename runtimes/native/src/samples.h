// Inputs read from their files sample by sample, and outputs written the same way: a set may be larger than the memory.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "files.h"
#include "model.h"
#include "npy.h"
#include "sha256.h"

namespace runner {

using Given = std::vector<std::pair<std::string, std::string>>;  // an input's name and its .npy file

// The inputs of a model, in its own order: those given, or zeros.
class Samples {
public:
    // Stacked arrays have one axis more, in front: samples.
    Samples(const Given& given, const Model& model, bool is_stacked);

    std::size_t count() const { return count_; }
    bool is_stacked() const { return is_stacked_; }
    std::vector<Tensor> read(std::size_t index) const;  // fails where a value does not fit its input

private:
    void open(const Given& given);

    const Model* model_;
    bool is_stacked_;
    std::vector<NpyReader> files_;  // none: zeros
    std::size_t count_ = 1;
};

struct OutputFacts {
    std::string sha256;  // of the values in C order, little-endian, samples one after the other
    Shape shape;
    std::string file;  // empty where it was not written
};

// One output of all samples: hashed, and written where a file is named.
class OutputSink {
public:
    OutputSink(std::string file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}
    // `count` samples are to come; one of a single sample that is not stacked keeps its own shape.
    void add(const Tensor& tensor, std::size_t count, bool is_stacked);
    OutputFacts finish();

private:
    std::string file_, name_;
    Shape shape_, sample_shape_;
    std::unique_ptr<FileWriter> writer_;
    Sha256 digest_;
    bool has_begun_ = false;
};

}  // namespace runner
