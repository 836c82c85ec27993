// .tflite files through TensorFlow Lite's C interface: the interpreter, and delegates in libraries of their own.

#include <cstdio>
#include <map>
#include <optional>

#include "chatter.h"
#include "failure.h"
#include "files.h"
#include "model.h"
#include "tflite_functions.h"

namespace runner {
namespace {

constexpr int kOk = 0;

void append_words(void* user, const char* format, va_list arguments) {
    char line[1024];
    std::vsnprintf(line, sizeof line, format, arguments);
    auto* words = static_cast<std::string*>(user);
    *words += (words->empty() ? "" : "; ") + std::string(line);
}

void show_words(const char* words) { std::fprintf(stderr, "delegate: %s\n", words); }

// A delegate from its own library, destroyed after the interpreter that used it.
class ExternalDelegate {
public:
    ExternalDelegate(const std::string& path, const std::vector<std::pair<std::string, std::string>>& options) : library_(path) {
        std::vector<const char*> keys, values;
        for (const auto& [key, value] : options) {
            keys.push_back(key.c_str());
            values.push_back(value.c_str());
        }
        const auto create = library_.symbol<tflite::CreateDelegate>("tflite_plugin_create_delegate");
        destroy_ = library_.symbol<tflite::DestroyDelegate>("tflite_plugin_destroy_delegate");
        Chatter chatter;
        delegate_ = create(keys.data(), values.data(), keys.size(), show_words);
        if (delegate_ == nullptr) throw Failure(kNotSupported, "delegate " + path + " cannot be used here" + chatter.words());
    }
    ~ExternalDelegate() { destroy_(delegate_); }
    ExternalDelegate(const ExternalDelegate&) = delete;
    ExternalDelegate& operator=(const ExternalDelegate&) = delete;
    tflite::Delegate* get() const { return delegate_; }
    const std::string& path() const { return library_.path(); }

private:
    Library library_;
    tflite::DestroyDelegate destroy_;
    tflite::Delegate* delegate_;
};

class TfLiteModel final : public Model {
public:
    TfLiteModel(Library&& library, const std::string& path, std::string&& bytes, const Options& options)
        : library_(std::move(library)), path_(path), call_(tflite::find_functions(library_)), bytes_(std::move(bytes)) {
        runtime_.name = "tflite";
        runtime_.version = call_.version();
        runtime_.library = library_.path();
        try {
            load(options);
        } catch (...) {
            release();
            throw;
        }
    }

    ~TfLiteModel() override { release(); }
    TfLiteModel(const TfLiteModel&) = delete;
    TfLiteModel& operator=(const TfLiteModel&) = delete;

    void set_inputs(const std::vector<Tensor>& values) override {
        for (std::size_t index = 0; index < values.size(); ++index) {
            auto* tensor = call_.input(interpreter_, static_cast<std::int32_t>(index));
            check(call_.write(tensor, values[index].bytes.data(), values[index].bytes.size()), "an input cannot be written");
        }
    }

    void invoke() override { check(call_.invoke(interpreter_), "it could not run on these inputs"); }

    std::vector<Tensor> read_outputs() override {
        std::vector<Tensor> found;
        for (std::size_t index = 0; index < outputs_.size(); ++index) {
            const auto* tensor = call_.output(interpreter_, static_cast<std::int32_t>(index));
            Tensor values = zeros(outputs_[index].dtype, shape_of(tensor));
            check(call_.read(tensor, values.bytes.data(), values.bytes.size()), "an output cannot be read");
            found.push_back(std::move(values));
        }
        return found;
    }

private:
    void load(const Options& options) {
        Chatter chatter;
        file_ = call_.create_model(bytes_.data(), bytes_.size());
        if (file_ == nullptr)
            throw Failure(kIntegrity, path_ + " is not a model TensorFlow Lite " + runtime_.version + " can read" + chatter.words());
        options_ = call_.create_options();
        call_.set_threads(options_, options.threads);
        call_.set_error_reporter(options_, append_words, &words_);
        choose_delegate(options);
        interpreter_ = call_.create(file_, options_);
        if (interpreter_ == nullptr || call_.allocate(interpreter_) != kOk) fail_to_load();
        runtime_.options["num_threads"] = std::to_string(options.threads);
        const auto names = signature_names();
        for (std::int32_t index = 0; index < call_.input_count(interpreter_); ++index)
            inputs_.push_back(describe(call_.input(interpreter_, index), names));
        for (std::int32_t index = 0; index < call_.output_count(interpreter_); ++index)
            outputs_.push_back(describe(call_.output(interpreter_, index), names));
    }

    void choose_delegate(const Options& options) {
        const std::string& wanted = options.provider;
        if (wanted.empty() || wanted == "xnnpack") {
            runtime_.provider = "xnnpack";  // the interpreter's own default, where the library was built with it
            return;
        }
        if (wanted.find('/') == std::string::npos && !is_file(wanted))
            throw Failure(kUsage, "TensorFlow Lite's C library has no delegate '" + wanted +
                                      "'; it has xnnpack, or the path of a library that holds a delegate. Its kernels without a"
                                      " delegate (builtin, reference) are reached with libLiteRt.so.");
        delegate_.emplace(wanted, options.provider_options);
        call_.add_delegate(options_, delegate_->get());
        runtime_.provider = delegate_->path();
    }

    // Names of the one signature, by tensor; none where the file has none or several.
    std::map<const tflite::TensorHandle*, std::string> signature_names() {
        std::map<const tflite::TensorHandle*, std::string> names;
        if (call_.signature_count == nullptr || call_.signature_count(interpreter_) != 1) return names;
        auto* runner = call_.signature_runner(interpreter_, call_.signature_key(interpreter_, 0));
        if (runner == nullptr) return names;
        for (std::size_t index = 0; index < call_.runner_input_count(runner); ++index) {
            const char* name = call_.runner_input_name(runner, static_cast<std::int32_t>(index));
            names[call_.runner_input(runner, name)] = name;
        }
        for (std::size_t index = 0; index < call_.runner_output_count(runner); ++index) {
            const char* name = call_.runner_output_name(runner, static_cast<std::int32_t>(index));
            names[call_.runner_output(runner, name)] = name;
        }
        call_.delete_runner(runner);
        return names;
    }

    TensorInfo describe(const tflite::TensorHandle* tensor, const std::map<const tflite::TensorHandle*, std::string>& names) {
        TensorInfo info{};
        const auto named = names.find(tensor);
        info.name = named == names.end() ? call_.name(tensor) : named->second;
        const auto dtype = dtype_of_tflite(call_.type(tensor));
        if (!dtype)
            throw Failure(kNotSupported, path_ + ": '" + info.name + "' has TFLite's element type " +
                                             std::to_string(call_.type(tensor)) + ", which this program does not take.");
        info.dtype = *dtype;
        info.shape = shape_of(tensor);
        const auto grid = call_.quantization(tensor);
        if (grid.scale != 0) info.grid = Grid{grid.scale, grid.zero_point};
        return info;
    }

    Shape shape_of(const tflite::TensorHandle* tensor) const {
        Shape shape;
        for (std::int32_t axis = 0; axis < call_.rank(tensor); ++axis) shape.push_back(call_.size(tensor, axis));
        return shape;
    }

    [[noreturn]] void fail_to_load() const {
        const std::string reason = words_.empty() ? "." : ": " + words_;
        if (words_.find("custom op") != words_.npos || words_.find("Didn't find op") != words_.npos)
            throw Failure(kNotSupported, path_ + ": TensorFlow Lite has no kernel for an operator of this model" + reason);
        if (delegate_) throw Failure(kNotSupported, path_ + ": " + delegate_->path() + " did not take the model" + reason);
        throw Failure(kIntegrity, path_ + " is not a model TensorFlow Lite " + runtime_.version + " can load" + reason);
    }

    void check(int status, const char* what) const {
        if (status != kOk) throw Failure(kUsage, path_ + ": TensorFlow Lite: " + what + (words_.empty() ? "." : ": " + words_));
    }

    void release() {
        if (interpreter_ != nullptr) call_.destroy(interpreter_);
        if (options_ != nullptr) call_.delete_options(options_);
        if (file_ != nullptr) call_.delete_model(file_);
        delegate_.reset();
    }

    Library library_;
    std::string path_;
    tflite::Functions call_;
    std::string bytes_;  // the interpreter reads the weights where they lie
    std::string words_;  // what the interpreter reported
    std::optional<ExternalDelegate> delegate_;
    tflite::ModelFile* file_ = nullptr;
    tflite::InterpreterOptions* options_ = nullptr;
    tflite::Interpreter* interpreter_ = nullptr;
};

}  // namespace

std::unique_ptr<Model> load_tflite(Library&& library, const std::string& path, std::string&& bytes, const Options& options) {
    return std::make_unique<TfLiteModel>(std::move(library), path, std::move(bytes), options);
}

}  // namespace runner
