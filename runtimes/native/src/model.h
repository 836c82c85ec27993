// A loaded model, whatever runtime it is in.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "library.h"
#include "tensor.h"

namespace runner {

struct Options {
    std::string library;   // path; empty: looked for
    int threads = 1;
    std::string provider;  // execution provider, delegate, or the path of a delegate; empty: the runtime's default
    std::vector<std::pair<std::string, std::string>> provider_options;
    std::string optimization = "all";  // ONNX Runtime's graph optimisation
    bool spinning = true;              // ONNX Runtime: threads spin between operators
};

struct RuntimeFacts {
    std::string name;      // "onnxruntime", "litert", "tflite"
    std::string version;   // as the library says; empty where it does not
    std::string library;   // path it was opened at
    std::string provider;  // what was used
    std::map<std::string, std::string> options;  // what was honoured, as given to the runtime
};

class Model {
public:
    virtual ~Model() = default;

    const std::vector<TensorInfo>& inputs() const { return inputs_; }
    const std::vector<TensorInfo>& outputs() const { return outputs_; }
    const RuntimeFacts& runtime() const { return runtime_; }
    const std::map<std::string, std::string>& metadata() const { return metadata_; }  // edgekit's own, from the file

    // Puts values in place, in the order of `inputs()`; checked by the caller with `check_fits`.
    virtual void set_inputs(const std::vector<Tensor>& values) = 0;
    // One inference: the runtime's own call and nothing else.
    virtual void invoke() = 0;
    // What the last inference computed, in the order of `outputs()`.
    virtual std::vector<Tensor> read_outputs() = 0;

protected:
    std::vector<TensorInfo> inputs_;
    std::vector<TensorInfo> outputs_;
    RuntimeFacts runtime_;
    std::map<std::string, std::string> metadata_;
};

// Loads by the file's first bytes; `path` is for messages and for weights in a file beside it.
std::unique_ptr<Model> load_model(const std::string& path, std::string&& bytes, const Options& options);

std::unique_ptr<Model> load_onnxruntime(const std::string& path, std::string&& bytes, const Options& options);
std::unique_ptr<Model> load_litert(Library&& library, const std::string& path, std::string&& bytes, const Options& options);
std::unique_ptr<Model> load_tflite(Library&& library, const std::string& path, std::string&& bytes, const Options& options);

}  // namespace runner
