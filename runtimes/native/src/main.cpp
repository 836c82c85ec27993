// edgekit-runner: runs and times one model file where there is no Python.

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "arguments.h"
#include "failure.h"
#include "files.h"
#include "npy.h"
#include "process.h"
#include "report.h"
#include "serve.h"
#include "sha256.h"

namespace runner {
namespace {

// Inputs in the model's order: those given, or zeros.
std::vector<Tensor> read_inputs(const Arguments& arguments, const Model& model) {
    std::vector<Tensor> values;
    std::string known;
    for (const auto& input : model.inputs()) known += (known.empty() ? "" : ", ") + input.name;
    for (const auto& given : arguments.inputs) {
        bool is_known = false;
        for (const auto& input : model.inputs()) is_known = is_known || input.name == given.first;
        if (!is_known) throw Failure(kUsage, "the model has no input '" + given.first + "'; it has " + known + ".");
    }
    for (const auto& input : model.inputs()) {
        const std::string* file = nullptr;
        for (const auto& given : arguments.inputs)
            if (given.first == input.name) file = &given.second;
        if (file == nullptr && !arguments.inputs.empty())
            throw Failure(kUsage, "input '" + input.name + "' is missing. Give every input, or none for zeros.");
        values.push_back(file == nullptr ? zeros(input.dtype, input.shape) : read_npy(*file));
    }
    return values;
}

// Sample `index` of arrays that have an axis of samples in front.
std::vector<Tensor> sample(const std::vector<Tensor>& stacked, std::size_t index) {
    std::vector<Tensor> values;
    for (const auto& tensor : stacked) {
        Tensor one{tensor.dtype, Shape(tensor.shape.begin() + 1, tensor.shape.end()), {}};
        const std::size_t size = element_count(one.shape) * facts(one.dtype).size_bytes;
        const auto start = tensor.bytes.begin() + static_cast<std::ptrdiff_t>(index * size);
        one.bytes.assign(start, start + static_cast<std::ptrdiff_t>(size));
        values.push_back(std::move(one));
    }
    return values;
}

std::size_t count_samples(const Arguments& arguments, const std::vector<Tensor>& values) {
    if (!arguments.is_stacked || arguments.inputs.empty()) return 1;
    for (const auto& tensor : values)
        if (tensor.shape.empty() || tensor.shape[0] != values[0].shape[0] || tensor.shape[0] == 0)
            throw Failure(kUsage, "--stacked: every input needs the same number of samples, at least one, in front.");
    return static_cast<std::size_t>(values[0].shape[0]);
}

// Runs every sample; the outputs are those of all of them, stacked where the inputs are.
std::vector<Tensor> run_samples(const Arguments& arguments, const std::vector<Tensor>& given, Model& model, Report* report) {
    const bool is_stacked = arguments.is_stacked && !arguments.inputs.empty();
    report->sample_count = count_samples(arguments, given);
    std::vector<Tensor> all;
    for (std::size_t index = 0; index < report->sample_count; ++index) {
        const std::vector<Tensor> values = is_stacked ? sample(given, index) : given;
        for (std::size_t place = 0; place < values.size(); ++place) check_fits(values[place], model.inputs()[place]);
        model.set_inputs(values);
        const std::int64_t start = wall_ns();
        model.invoke();
        if (index == 0) report->first_inference_ns = wall_ns() - start;
        auto outputs = model.read_outputs();
        if (index == 0) {
            all = std::move(outputs);
            continue;
        }
        for (std::size_t place = 0; place < all.size(); ++place) {
            if (outputs[place].shape != all[place].shape)
                throw Failure(kNotSupported, "output '" + model.outputs()[place].name + "' changes its shape from sample to"
                                                                                         " sample; run them one by one.");
            all[place].bytes.insert(all[place].bytes.end(), outputs[place].bytes.begin(), outputs[place].bytes.end());
        }
    }
    if (is_stacked)
        for (auto& tensor : all) tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(report->sample_count));
    return all;
}

void keep_outputs(const Arguments& arguments, const std::vector<Tensor>& outputs, Report* report) {
    const std::string& folder = arguments.output_folder;
    if (!folder.empty() && mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST)
        throw Failure(kUsage, folder + " cannot be made: " + std::strerror(errno));
    for (std::size_t index = 0; index < outputs.size(); ++index) {
        OutputFacts facts{sha256(outputs[index].bytes.data(), outputs[index].bytes.size()), outputs[index].shape, ""};
        if (!folder.empty()) {
            facts.file = folder + "/output_" + std::to_string(index) + ".npy";
            write_npy(facts.file, outputs[index]);
        }
        report->outputs.push_back(facts);
    }
}

void run(const Arguments& arguments, Model& model, Report* report) {
    const auto inputs = read_inputs(arguments, model);
    for (const auto& tensor : inputs) report->input_sha256.push_back(sha256(tensor.bytes.data(), tensor.bytes.size()));
    keep_outputs(arguments, run_samples(arguments, inputs, model, report), report);
    if (arguments.plan.is_wanted()) report->timing = time_inferences(model, arguments.plan);
    if (arguments.audit_pairs > 0) report->audit = audit_overhead(model, arguments.audit_pairs);
}

// Standard output for the report alone: what libraries print goes to the error stream.
int take_standard_output() {
    const int kept = dup(STDOUT_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    return kept;
}

void finish(const Arguments& arguments, const std::string& words, int output) {
    if (!arguments.report.empty()) return write_file(arguments.report, words + "\n");
    const std::string line = words + "\n";
    for (std::size_t done = 0; done < line.size();) {
        const ssize_t count = write(output, line.data() + done, line.size() - done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) throw Failure(kUsage, std::string("the report cannot be written: ") + std::strerror(errno));
        done += static_cast<std::size_t>(count);
    }
}

int start(int count, const char* const* words) {
    const Arguments arguments = parse_arguments(count, words);
    if (arguments.wants_help || arguments.wants_version) {
        std::fputs(arguments.wants_help ? kHelp : (std::string("edgekit-runner ") + kVersion + "\n").c_str(), stdout);
        return 0;
    }
    const int output = take_standard_output();
    if (!arguments.affinity.empty()) set_affinity(parse_cpu_list(arguments.affinity));  // before any library starts threads
    Report report;
    std::string bytes = read_file(arguments.model, kIntegrity);
    report.model_sha256 = sha256(bytes.data(), bytes.size());
    report.model_size_bytes = bytes.size();
    const std::int64_t begin = wall_ns();
    const auto model = load_model(arguments.model, std::move(bytes), arguments.options);
    report.load_ns = wall_ns() - begin;
    report.memory_after_load_bytes = peak_memory_bytes();
    if (arguments.serves) {
        serve(*model, document(arguments, *model, report), STDIN_FILENO, output);
        return 0;
    }
    if (!arguments.only_describe) run(arguments, *model, &report);
    finish(arguments, document(arguments, *model, report), output);
    return 0;
}

}  // namespace
}  // namespace runner

int main(int count, char** words) {
    try {
        return runner::start(count, words);
    } catch (const runner::Failure& failure) {
        std::fprintf(stderr, "edgekit-runner: %s\n", failure.what());
        return failure.code();
    } catch (const std::bad_alloc&) {
        std::fprintf(stderr, "edgekit-runner: there is not enough memory for this model or these inputs.\n");
        return runner::kUsage;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "edgekit-runner: a bug: %s\n", error.what());
        return runner::kBug;
    }
}
