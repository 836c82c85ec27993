#include "arguments.h"

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <map>

#include "failure.h"

namespace runner {

const char kHelp[] = R"(edgekit-runner MODEL [OPTIONS]

Runs and times a .tflite, .onnx or .ort file with a runtime's shared library, and says what it found as JSON.

What to run
  --library PATH          the runtime: libLiteRt.so or libtensorflowlite_c.so, libonnxruntime.so
                          [default: looked for beside this program, then where the system looks]
  --input NAME=FILE.npy   values of an input; may be repeated. Without any: zeros
  --stacked               each input file has one axis more, in front: samples, answered one after the other
  --output-dir FOLDER     write the outputs there as output_0.npy ...; without: only their SHA-256 is said
  --beside MODEL          another model, to be timed in turn with the first; the --input after it are its own; may be repeated
  --describe              load the model, say what it takes and gives, and run nothing

How to run it
  --threads N             [default: 1]
  --affinity LIST         processors to run on, such as 0,2-3
  --memory-limit BYTES    most memory of its own the process may take (RLIMIT_DATA)
  --provider NAME|PATH    LiteRT: xnnpack, builtin, reference, gpu, npu; TensorFlow Lite: xnnpack, or a delegate's library;
                          ONNX Runtime: an execution provider [default: xnnpack; cpu]
  --provider-option K=V   an option of the delegate or execution provider; may be repeated
  --optimization LEVEL    ONNX Runtime: all, extended, basic, none [default: all]
  --spinning on|off       ONNX Runtime: threads spin between operators [default: on]

What to measure
  --warm-up N             inferences before the timing starts [default: 0]
  --repeat N              timed inferences
  --seconds S             time for so long; with --repeat: whichever ends first
  --load-again            load twice: the second time, after three inferences, is the model's own, without the library's
  --rounds N              time all models in alternating blocks, at least N of each; goes on for --seconds, or until every
                          median is known to 1 %
  --loads N               load the models up to N times anew in between [default: 1]
  --sustained-minutes M   run without a pause, and say every --window-seconds what it is like [default: 10]
  --cold                  have the system forget the model's file before it is loaded
  --block-ms MS           how long a block lasts [default: 20]
  --audit-overhead PAIRS  time blocks of inferences with and without sampling, in turn

  --system FOLDER         where the system tells temperatures and clocks [default: /sys]
  --report FILE           where the JSON goes [default: standard output]
  --serve                 answer requests on standard input until it ends (edgekit's driver)
  --version, --help

Exit codes: 0 done, 2 usage, 3 not supported, 5 damaged model file, 70 a bug.
)";

namespace {

std::int64_t whole_number(const std::string& option, const std::string& word, std::int64_t least, std::int64_t most) {
    errno = 0;
    char* end = nullptr;
    const std::int64_t value = std::strtoll(word.c_str(), &end, 10);
    if (errno != 0 || word.empty() || *end != '\0' || value < least || value > most)
        throw Failure(kUsage, option + " is '" + word + "'; it must be a whole number from " + std::to_string(least) + " to " +
                                  std::to_string(most) + ".");
    return value;
}

double positive_number(const std::string& option, const std::string& word, const std::string& unit) {
    char* end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    if (word.empty() || *end != '\0' || !(value > 0 && value < 1e6))
        throw Failure(kUsage, option + " is '" + word + "'; it must be a number of " + unit + " above 0.");
    return value;
}

std::pair<std::string, std::string> pair_of(const std::string& option, const std::string& word) {
    const auto equals = word.find('=');
    if (equals == std::string::npos || equals == 0) throw Failure(kUsage, option + " is '" + word + "'; write NAME=VALUE.");
    return {word.substr(0, equals), word.substr(equals + 1)};
}

bool is_on(const std::string& option, const std::string& word) {
    if (word != "on" && word != "off") throw Failure(kUsage, option + " is '" + word + "'; write on or off.");
    return word == "on";
}

using Setters = std::map<std::string, std::function<void(const std::string&)>>;

Setters settings_with_values(Arguments* found) {
    constexpr std::int64_t kMany = 1000000;
    auto& options = found->options;
    return {
        {"--library", [&options](const auto& word) { options.library = word; }},
        {"--provider", [&options](const auto& word) { options.provider = word; }},
        {"--provider-option",
         [&options](const auto& word) { options.provider_options.push_back(pair_of("--provider-option", word)); }},
        {"--threads",
         [&options](const auto& word) { options.threads = static_cast<int>(whole_number("--threads", word, 1, 1024)); }},
        {"--optimization", [&options](const auto& word) { options.optimization = word; }},
        {"--spinning", [&options](const auto& word) { options.spinning = is_on("--spinning", word); }},
        {"--input",
         [found](const auto& word) {
             auto& inputs = found->beside.empty() ? found->inputs : found->beside.back().inputs;
             inputs.push_back(pair_of("--input", word));
         }},
        {"--beside", [found](const auto& word) { found->beside.push_back({word, {}}); }},
        {"--output-dir", [found](const auto& word) { found->output_folder = word; }},
        {"--report", [found](const auto& word) { found->report = word; }},
        {"--affinity", [found](const auto& word) { found->affinity = word; }},
        {"--memory-limit",
         [found](const auto& word) { found->memory_limit_bytes = whole_number("--memory-limit", word, 1, INT64_MAX); }},
        {"--warm-up", [found](const auto& word) { found->plan.warm_up = whole_number("--warm-up", word, 0, kMany); }},
        {"--repeat", [found](const auto& word) { found->plan.repeat = whole_number("--repeat", word, 1, kMany); }},
        {"--seconds", [found](const auto& word) { found->plan.seconds = positive_number("--seconds", word, "seconds"); }},
        {"--rounds", [found](const auto& word) { found->rounds.fewest = whole_number("--rounds", word, 1, kMany); }},
        {"--block-ms",
         [found](const auto& word) { found->rounds.block_seconds = positive_number("--block-ms", word, "milliseconds") / 1e3; }},
        {"--loads", [found](const auto& word) { found->rounds.loads = whole_number("--loads", word, 1, 1000); }},
        {"--sustained-minutes",
         [found](const auto& word) {
             found->sustained.seconds = 60 * positive_number("--sustained-minutes", word, "minutes");
         }},
        {"--window-seconds",
         [found](const auto& word) {
             found->sustained.window_seconds = positive_number("--window-seconds", word, "seconds");
         }},
        {"--system", [found](const auto& word) { found->system = word; }},
        {"--audit-overhead",
         [found](const auto& word) { found->audit_pairs = whole_number("--audit-overhead", word, 1, 10000); }},
    };
}

Setters settings_without_values(Arguments* found) {
    return {
        {"--stacked", [found](const auto&) { found->is_stacked = true; }},
        {"--cold", [found](const auto&) { found->is_cold = true; }},
        {"--load-again", [found](const auto&) { found->loads_again = true; }},
        {"--describe", [found](const auto&) { found->only_describe = true; }},
        {"--serve", [found](const auto&) { found->serves = true; }},
        {"--version", [found](const auto&) { found->wants_version = true; }},
        {"--help", [found](const auto&) { found->wants_help = true; }},
        {"-h", [found](const auto&) { found->wants_help = true; }},
    };
}

// Options that need, or exclude, one another.
void check(const Arguments& found) {
    if (!found.beside.empty() && found.rounds.fewest == 0)
        throw Failure(kUsage, "--beside names a model to be timed in turn with the first: say --rounds N.");
    if (found.rounds.fewest > 0 && found.plan.repeat > 0)
        throw Failure(kUsage, "--rounds and --repeat exclude each other: rounds last --seconds S.");
}

}  // namespace

Arguments parse_arguments(int count, const char* const* words) {
    Arguments found;
    const Setters with_values = settings_with_values(&found), without_values = settings_without_values(&found);
    for (int index = 1; index < count; ++index) {
        const std::string word = words[index];
        const auto equals = word.find('=');
        const std::string name = word.substr(0, equals);
        if (const auto plain = without_values.find(word); plain != without_values.end()) {
            plain->second("");
        } else if (const auto setter = with_values.find(name); setter != with_values.end()) {
            if (equals == std::string::npos && index + 1 == count) throw Failure(kUsage, name + " lacks its value. See --help.");
            setter->second(equals == std::string::npos ? words[++index] : word.substr(equals + 1));
        } else if (word.size() > 1 && word[0] == '-') {
            throw Failure(kUsage, "unknown option " + name + ". See --help.");
        } else if (!found.model.empty()) {
            throw Failure(kUsage, "two models were given: " + found.model + " and " + word + ".");
        } else {
            found.model = word;
        }
    }
    check(found);
    if (found.model.empty() && !found.wants_help && !found.wants_version) throw Failure(kUsage, "no model was given. See --help.");
    return found;
}

}  // namespace runner
