// .onnx and .ort files through ONNX Runtime's C interface, with the settings of edgekit's Python runtime.

#include <cstring>
#include <functional>

#include "failure.h"
#include "files.h"
#include "model.h"
#include "onnxruntime_abi.h"
#include "onnxruntime_settings.h"

namespace runner {
namespace {

using ort::Slot;

// Owns what the table's functions make, and turns their errors into failures.
class OnnxModel final : public Model {
public:
    OnnxModel(const std::string& path, std::string bytes, const Options& options)
        : library_(open_onnxruntime(options.library)), path_(path), table_(onnxruntime_table(library_, &runtime_)) {
        try {
            load(bytes, options);
        } catch (...) {
            release();
            throw;
        }
    }

    ~OnnxModel() override { release(); }
    OnnxModel(const OnnxModel&) = delete;
    OnnxModel& operator=(const OnnxModel&) = delete;

    void set_inputs(const std::vector<Tensor>& values) override {
        release_values();
        given_ = values;
        for (auto& tensor : given_) {
            ort::Value* value = nullptr;
            check(table_(ort::kCreateTensorWithData, memory_, tensor.bytes.data(), tensor.bytes.size(), tensor.shape.data(),
                         tensor.shape.size(), facts(tensor.dtype).onnx, &value));
            input_values_.push_back(value);
        }
        output_values_.assign(outputs_.size(), nullptr);
    }

    // The first call after `set_inputs` has the outputs allocated; the later ones write into the same.
    void invoke() override {
        ort::Status* status =
            table_(ort::kRun, session_, nullptr, input_names_.data(), input_values_.data(), input_values_.size(),
                   output_names_.data(), output_values_.size(), output_values_.data());
        if (status != nullptr) fail_to_run(status);
    }

    std::vector<Tensor> read_outputs() override {
        std::vector<Tensor> found;
        for (std::size_t index = 0; index < outputs_.size(); ++index) found.push_back(read(index));
        return found;
    }

private:
    void load(const std::string& bytes, const Options& options) {
        check(table_(ort::kCreateEnv, ort::kLogFatal, "edgekit-runner", &env_));
        check(table_(ort::kGetAllocatorWithDefaultOptions, &allocator_));
        check(table_(ort::kCreateCpuMemoryInfo, ort::kArenaAllocator, ort::kDefaultMemory, &memory_));
        check(table_(ort::kCreateSessionOptions, &settings_));
        apply_settings(table_, settings_, options, &runtime_);
        ort::Status* status =
            is_file(path_ + ".data")  // weights beside the model are found by its path only
                ? table_(ort::kCreateSession, env_, path_.c_str(), settings_, &session_)
                : table_(ort::kCreateSessionFromArray, env_, bytes.data(), bytes.size(), settings_, &session_);
        if (status != nullptr) fail_to_load(status);
        describe(ort::kSessionGetInputCount, ort::kSessionGetInputName, ort::kSessionGetInputTypeInfo, &inputs_);
        describe(ort::kSessionGetOutputCount, ort::kSessionGetOutputName, ort::kSessionGetOutputTypeInfo, &outputs_);
        for (const auto& input : inputs_) input_names_.push_back(input.name.c_str());
        for (const auto& output : outputs_) output_names_.push_back(output.name.c_str());
        read_metadata();
    }

    template <typename Count, typename Name, typename Type>
    void describe(Count count_slot, Name name_slot, Type type_slot, std::vector<TensorInfo>* found) {
        std::size_t count = 0;
        check(table_(count_slot, session_, &count));
        for (std::size_t index = 0; index < count; ++index) {
            TensorInfo info{};
            char* name = nullptr;
            check(table_(name_slot, session_, index, allocator_, &name));
            info.name = name;
            check(table_(ort::kAllocatorFree, allocator_, name));
            ort::TypeInfo* type = nullptr;
            check(table_(type_slot, session_, index, &type));
            const std::unique_ptr<ort::TypeInfo, Release<ort::TypeInfo>> owner(type, {table_, ort::kReleaseTypeInfo});
            read_type(type, &info);
            found->push_back(info);
        }
    }

    void read_type(const ort::TypeInfo* type, TensorInfo* info) {
        int kind = 0, element = 0;
        const ort::TensorInfo* tensor = nullptr;
        check(table_(ort::kGetOnnxTypeFromTypeInfo, type, &kind));
        if (kind == ort::kTensorType) check(table_(ort::kCastTypeInfoToTensorInfo, type, &tensor));
        if (tensor != nullptr) check(table_(ort::kGetTensorElementType, tensor, &element));
        const auto dtype = dtype_of_onnx(element);
        if (!dtype)
            throw Failure(kNotSupported, path_ + ": '" + info->name +
                                             "' is no tensor of bool, int8, uint8, int16, int32, int64, float16, float32 or"
                                             " float64, which is what this program takes.");
        info->dtype = *dtype;
        info->shape = shape_of(tensor);
    }

    Shape shape_of(const ort::TensorInfo* tensor) {
        std::size_t rank = 0;
        check(table_(ort::kGetDimensionsCount, tensor, &rank));
        Shape shape(rank);
        check(table_(ort::kGetDimensions, tensor, shape.data(), rank));
        for (auto& size : shape)
            if (size < 0) size = -1;
        return shape;
    }

    void read_metadata() {
        ort::Metadata* metadata = nullptr;
        check(table_(ort::kSessionGetModelMetadata, session_, &metadata));
        const std::unique_ptr<ort::Metadata, Release<ort::Metadata>> owner(metadata, {table_, ort::kReleaseMetadata});
        for (const char* key : {"edgekit.inputs", "edgekit.outputs"}) {
            char* value = nullptr;
            check(table_(ort::kMetadataLookup, metadata, allocator_, key, &value));
            if (value == nullptr) continue;
            metadata_[key] = value;
            check(table_(ort::kAllocatorFree, allocator_, value));
        }
    }

    Tensor read(std::size_t index) {
        const auto& info = outputs_[index];
        ort::Value* value = output_values_[index];
        int is_tensor = 0;
        if (value != nullptr) check(table_(ort::kIsTensor, value, &is_tensor));
        if (is_tensor == 0) throw Failure(kNotSupported, "output '" + info.name + "' is no tensor.");
        ort::TensorInfo* type = nullptr;
        check(table_(ort::kGetTensorTypeAndShape, value, &type));
        const std::unique_ptr<ort::TensorInfo, Release<ort::TensorInfo>> owner(type, {table_, ort::kReleaseTensorInfo});
        Tensor tensor{info.dtype, shape_of(type), {}};
        void* data = nullptr;
        check(table_(ort::kGetTensorMutableData, value, &data));
        tensor.bytes.resize(element_count(tensor.shape) * facts(tensor.dtype).size_bytes);
        if (!tensor.bytes.empty()) std::memcpy(tensor.bytes.data(), data, tensor.bytes.size());
        return tensor;
    }

    template <typename Handle>
    struct Release {
        template <std::size_t place>
        Release(ort::Table table, Slot<place, void(Handle*)> slot)
            : release([table, slot](Handle* handle) { table(slot, handle); }) {}
        void operator()(Handle* handle) const { release(handle); }
        std::function<void(Handle*)> release;
    };

    void check(ort::Status* status) const { check_onnxruntime(table_, status, runtime_); }

    [[noreturn]] void fail_to_load(ort::Status* status) const {
        const auto [code, words] = take_status(table_, status);
        const bool lacks_kernel = code == ort::kNotImplemented || words.find("is not a registered function/op") != words.npos ||
                                  words.find("No Op registered for") != words.npos ||
                                  words.find("Could not find an implementation") != words.npos;
        const std::string runtime = "ONNX Runtime " + runtime_.version;
        if (lacks_kernel)
            throw Failure(kNotSupported, path_ + ": " + runtime + " has no kernel for an operator of this model: " + words);
        if (code == ort::kExecutionProviderFail)
            throw Failure(kNotSupported, path_ + ": the execution provider refused the model: " + words);
        throw Failure(kIntegrity, path_ + " is not a model " + runtime + " can read: " + words);
    }

    [[noreturn]] void fail_to_run(ort::Status* status) const {
        const auto [code, words] = take_status(table_, status);
        throw Failure(code == ort::kNotImplemented ? kNotSupported : kUsage,
                      "ONNX Runtime could not run " + path_ + " on these inputs: " + words);
    }

    void release_values() {
        for (auto* value : input_values_) table_(ort::kReleaseValue, value);
        for (auto* value : output_values_)
            if (value != nullptr) table_(ort::kReleaseValue, value);
        input_values_.clear();
        output_values_.clear();
    }

    void release() {
        release_values();
        if (session_ != nullptr) table_(ort::kReleaseSession, session_);
        if (settings_ != nullptr) table_(ort::kReleaseSessionOptions, settings_);
        if (memory_ != nullptr) table_(ort::kReleaseMemoryInfo, memory_);
        if (env_ != nullptr) table_(ort::kReleaseEnv, env_);
    }

    Library library_;
    std::string path_;
    ort::Table table_;
    ort::Env* env_ = nullptr;
    ort::Allocator* allocator_ = nullptr;  // the library's own
    ort::MemoryInfo* memory_ = nullptr;
    ort::SessionOptions* settings_ = nullptr;
    ort::Session* session_ = nullptr;
    std::vector<const char*> input_names_;
    std::vector<const char*> output_names_;
    std::vector<Tensor> given_;
    std::vector<ort::Value*> input_values_;
    std::vector<ort::Value*> output_values_;
};

}  // namespace

std::unique_ptr<Model> load_onnxruntime(const std::string& path, std::string&& bytes, const Options& options) {
    return std::make_unique<OnnxModel>(path, std::move(bytes), options);
}

}  // namespace runner
