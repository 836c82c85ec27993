#include "serve.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "failure.h"
#include "json.h"
#include "report.h"
#include "timing.h"

namespace runner {
namespace {

constexpr std::size_t kLineLimit = 1024;

class Pipe {
public:
    Pipe(int input, int output) : input_(input), output_(output) {}

    // The next line without its end; false where the input ended.
    bool read_line(std::string* line) {
        line->clear();
        for (;;) {
            if (place_ == buffer_.size() && !fill()) {
                if (line->empty()) return false;
                throw Failure(kUsage, "the input ended within a line.");
            }
            const char letter = buffer_[place_++];
            if (letter == '\n') return true;
            if (line->size() == kLineLimit) throw Failure(kUsage, "a line of the input is longer than 1024 characters.");
            *line += letter;
        }
    }

    void read_bytes(std::uint8_t* bytes, std::size_t size) {
        while (size > 0) {
            if (place_ == buffer_.size() && !fill()) throw Failure(kUsage, "the input ended within a tensor.");
            const std::size_t count = std::min(size, buffer_.size() - place_);
            std::memcpy(bytes, buffer_.data() + place_, count);
            place_ += count;
            bytes += count;
            size -= count;
        }
    }

    void write(const void* data, std::size_t size) {
        const auto* bytes = static_cast<const char*>(data);
        while (size > 0) {
            const ssize_t count = ::write(output_, bytes, size);
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) throw Failure(kUsage, "the answer cannot be written: " + std::string(std::strerror(errno)));
            bytes += count;
            size -= static_cast<std::size_t>(count);
        }
    }

    void write(const std::string& words) { write(words.data(), words.size()); }

private:
    bool fill() {
        buffer_.resize(65536);
        place_ = 0;
        ssize_t count = 0;
        do {
            count = read(input_, buffer_.data(), buffer_.size());
        } while (count < 0 && errno == EINTR);
        buffer_.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
        return !buffer_.empty();
    }

    int input_, output_;
    std::string buffer_;
    std::size_t place_ = 0;
};

// Reads a tensor's own line and its values; the size is checked before memory is taken.
Tensor read_tensor(Pipe& pipe, const TensorInfo& input) {
    std::string line, word, type;
    std::size_t rank = 0;
    if (!pipe.read_line(&line)) throw Failure(kUsage, "the input ended before '" + input.name + "'.");
    std::istringstream words(line);
    words >> word >> type >> rank;
    const auto dtype = dtype_of_name(type);
    if (words.fail() || word != "tensor" || !dtype || rank > 16)
        throw Failure(kUsage, "'" + line + "' stands where a tensor is expected.");
    Tensor tensor{*dtype, Shape(rank), {}};
    for (auto& size : tensor.shape) words >> size;
    if (words.fail()) throw Failure(kUsage, "'" + line + "' stands where a tensor is expected.");
    const std::size_t size = element_count(tensor.shape) * facts(*dtype).size_bytes;
    if (size > std::size_t{1} << 32) throw Failure(kUsage, "a tensor of " + std::to_string(size) + " bytes is too large.");
    tensor.bytes.resize(size);
    pipe.read_bytes(tensor.bytes.data(), size);
    return tensor;
}

void write_tensor(Pipe& pipe, const Tensor& tensor) {
    std::string line = std::string("tensor ") + facts(tensor.dtype).name + " " + std::to_string(tensor.shape.size());
    for (const auto size : tensor.shape) line += " " + std::to_string(size);
    pipe.write(line + "\n");
    pipe.write(tensor.bytes.data(), tensor.bytes.size());
}

void write_json(Pipe& pipe, const std::string& document) {
    pipe.write("json " + std::to_string(document.size()) + "\n");
    pipe.write(document);
}

void answer_run(Model& model, Pipe& pipe) {
    std::vector<Tensor> values;
    for (const auto& input : model.inputs()) values.push_back(read_tensor(pipe, input));
    for (std::size_t index = 0; index < values.size(); ++index) check_fits(values[index], model.inputs()[index]);
    model.set_inputs(values);
    model.invoke();
    const auto outputs = model.read_outputs();
    pipe.write("ok " + std::to_string(outputs.size()) + "\n");
    for (const auto& output : outputs) write_tensor(pipe, output);
}

void answer_measure(Model& model, Pipe& pipe, std::istringstream& words) {
    TimingPlan plan;
    words >> plan.warm_up >> plan.repeat >> plan.seconds;
    if (words.fail() || !plan.is_wanted() || plan.warm_up < 0) throw Failure(kUsage, "measure needs WARM_UP REPEAT SECONDS.");
    Json json;
    write_timing(time_inferences(model, plan), &json.object());
    write_json(pipe, json.end().str());
}

}  // namespace

void serve(Model& model, const std::string& description, int input, int output) {
    Pipe pipe(input, output);
    write_json(pipe, description);
    std::string line;
    bool has_inputs = false;
    while (pipe.read_line(&line)) {
        std::istringstream words(line);
        std::string verb;
        words >> verb;
        if (verb == "quit") return;
        if (verb != "run" && verb != "measure") throw Failure(kUsage, "'" + line + "' is no request.");
        try {
            if (verb == "measure" && !has_inputs) throw Failure(kUsage, "measure comes after a run, whose inputs it uses.");
            if (verb == "run") answer_run(model, pipe);
            if (verb == "measure") answer_measure(model, pipe, words);
            has_inputs = true;
        } catch (const Failure& failure) {
            const std::string message = failure.what();
            pipe.write("error " + std::to_string(failure.code()) + " " + std::to_string(message.size()) + "\n" + message);
        }
    }
}

}  // namespace runner
