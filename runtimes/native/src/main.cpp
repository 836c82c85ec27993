// edgekit-runner: runs and times one model file where there is no Python.

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>

#include "arguments.h"
#include "conditions.h"
#include "failure.h"
#include "files.h"
#include "process.h"
#include "report.h"
#include "rounds.h"
#include "samples.h"
#include "serve.h"
#include "sha256.h"

namespace runner {
namespace {

constexpr int kMoreFirstRuns = 2;
constexpr std::int64_t kLongestRepeatedLoadNs = 2000000000;

struct Loaded {
    std::unique_ptr<Model> model;
    std::string sha256;
    std::size_t size_bytes;
    std::int64_t load_ns, load_cpu_ns;  // from opening the library to a model that can run
};

Loaded load(const std::string& path, const Options& options) {
    std::string bytes = read_file(path, kIntegrity);
    Loaded found{nullptr, sha256(bytes.data(), bytes.size()), bytes.size(), 0, 0};
    const std::int64_t cpu = cpu_ns(), begin = wall_ns();
    found.model = load_model(path, std::move(bytes), options);
    found.load_ns = wall_ns() - begin;
    found.load_cpu_ns = cpu_ns() - cpu;
    return found;
}

// Runs every sample; the outputs of all of them are hashed, and written where a folder is named.
void run_samples(const Arguments& arguments, const Samples& samples, Model& model, Report* report) {
    const std::string& folder = arguments.output_folder;
    if (!folder.empty()) make_folder(folder);
    std::vector<Sha256> given(model.inputs().size());
    std::vector<OutputSink> outputs;
    for (std::size_t index = 0; index < model.outputs().size(); ++index)
        outputs.emplace_back(folder.empty() ? "" : folder + "/output_" + std::to_string(index) + ".npy",
                             model.outputs()[index].name);
    report->sample_count = samples.count();
    for (std::size_t index = 0; index < samples.count(); ++index) {
        const auto values = samples.read(index);
        for (std::size_t place = 0; place < values.size(); ++place)
            given[place].add(values[place].bytes.data(), values[place].bytes.size());
        model.set_inputs(values);
        const std::int64_t start = wall_ns();
        model.invoke();
        if (!report->first_inference_ns) report->first_inference_ns = wall_ns() - start;
        const auto found = model.read_outputs();
        for (std::size_t place = 0; place < found.size(); ++place)
            outputs[place].add(found[place], samples.count(), samples.is_stacked());
    }
    for (auto& digest : given) report->input_sha256.push_back(digest.hex());
    for (auto& output : outputs) report->outputs.push_back(output.finish());
}

// The first inferences, the memory they need, and the second load, unless the first took too long to be repeated.
void load_again(const Arguments& arguments, const Samples& samples, Loaded* loaded, Report* report) {
    loaded->model->set_inputs(samples.read(0));
    const std::int64_t start = wall_ns();
    loaded->model->invoke();
    report->first_inference_ns = wall_ns() - start;
    for (int again = 0; again < kMoreFirstRuns; ++again) loaded->model->invoke();
    report->reload = Reload{loaded->load_ns, loaded->load_cpu_ns, peak_memory_bytes()};
    if (loaded->load_ns >= kLongestRepeatedLoadNs) return;
    loaded->model.reset();
    *loaded = load(arguments.model, arguments.options);
    report->reload->load_ns = loaded->load_ns;
    report->reload->load_cpu_ns = loaded->load_cpu_ns;
}

// All models, each on the first sample of its own inputs; loaded anew at each call.
class Turns {
public:
    Turns(const Arguments& arguments, Report* report) : arguments_(arguments), report_(report) {}

    std::vector<Model*> open(bool is_reversed) {
        models_.clear();
        models_.resize(1 + arguments_.beside.size());
        for (std::size_t place = 0; place < models_.size(); ++place)
            load_one(is_reversed ? models_.size() - 1 - place : place);
        std::vector<Model*> found;
        for (const auto& model : models_) found.push_back(model.get());
        return found;
    }

    std::unique_ptr<Model> take_first() { return std::move(models_.front()); }

private:
    void load_one(std::size_t index) {
        const std::string& path = index == 0 ? arguments_.model : arguments_.beside[index - 1].path;
        Loaded loaded = load(path, arguments_.options);
        const Given& given = index == 0 ? arguments_.inputs : arguments_.beside[index - 1].inputs;
        loaded.model->set_inputs(Samples(given, *loaded.model, arguments_.is_stacked).read(0));
        loaded.model->invoke();
        if (index > 0 && report_->beside.size() < index) report_->beside.push_back({path, loaded.sha256});
        models_[index] = std::move(loaded.model);
    }

    const Arguments& arguments_;
    Report* report_;
    std::vector<std::unique_ptr<Model>> models_;
};

// What is to be timed: models in turn, one for long, or one for a while.
void measure(const Arguments& arguments, Loaded* loaded, Report* report) {
    const auto& system = arguments.system;
    const std::int64_t cpu = cpu_ns(), start = wall_ns();
    report->before = read_conditions(system);
    if (arguments.rounds.fewest > 0) {
        RoundsPlan plan = arguments.rounds;
        plan.seconds = arguments.plan.seconds;
        loaded->model.reset();  // there is never more than one copy of a model
        Turns turns(arguments, report);
        report->rounds = time_rounds([&](bool is_reversed) { return turns.open(is_reversed); },
                                     [&] { return read_clock_khz(system); }, plan);
        loaded->model = turns.take_first();
    } else if (arguments.sustained.seconds > 0) {
        report->sustained = run_sustained(*loaded->model, [&] { return read_conditions(system); }, arguments.sustained);
    } else {
        report->timing = time_inferences(*loaded->model, arguments.plan);
    }
    report->after = read_conditions(system);
    report->timed_wall_ns = wall_ns() - start;
    report->timed_cpu_ns = cpu_ns() - cpu;
}

void run(const Arguments& arguments, Loaded* loaded, Report* report) {
    if (arguments.loads_again) {
        const Samples first(arguments.inputs, *loaded->model, arguments.is_stacked);
        load_again(arguments, first, loaded, report);
    }
    const Samples samples(arguments.inputs, *loaded->model, arguments.is_stacked);
    run_samples(arguments, samples, *loaded->model, report);
    if (arguments.plan.is_wanted() || arguments.rounds.fewest > 0 || arguments.sustained.seconds > 0)
        measure(arguments, loaded, report);
    if (arguments.audit_pairs > 0) report->audit = audit_overhead(*loaded->model, arguments.audit_pairs);
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
    if (arguments.memory_limit_bytes > 0) limit_memory(arguments.memory_limit_bytes);
    Report report;
    if (arguments.is_cold) report.cached_share = drop_from_cache(arguments.model);
    report.memory_before_load_bytes = peak_memory_bytes();
    Loaded loaded = load(arguments.model, arguments.options);
    report.model_sha256 = loaded.sha256;
    report.model_size_bytes = loaded.size_bytes;
    report.load_ns = loaded.load_ns;
    report.load_cpu_ns = loaded.load_cpu_ns;
    report.memory_after_load_bytes = peak_memory_bytes();
    if (arguments.serves) {
        serve(*loaded.model, document(arguments, *loaded.model, report), STDIN_FILENO, output);
        return 0;
    }
    if (!arguments.only_describe) run(arguments, &loaded, &report);
    finish(arguments, document(arguments, *loaded.model, report), output);
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
