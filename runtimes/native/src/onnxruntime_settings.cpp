#include "onnxruntime_settings.h"

#include <algorithm>
#include <map>
#include <vector>

#include "failure.h"
#include "files.h"

namespace runner {
namespace {

const std::map<std::string, int> kLevels{{"none", 0}, {"basic", 1}, {"extended", 2}, {"all", 99}};
constexpr char kCpu[] = "CPUExecutionProvider";
constexpr char kSuffix[] = "ExecutionProvider";

// x86 before VNNI sums products of unsigned and signed bytes in saturating 16 bits, which is wrong for full-range int8 weights;
// ONNX Runtime has exact kernels for it (onnxruntime#12088). Where the processor cannot be asked, exactness comes first.
bool sums_saturate() {
#if defined(__x86_64__) || defined(__i386__)
    std::string flags;
    try {
        flags = read_special_file("/proc/cpuinfo");
    } catch (const Failure&) {
        return true;
    }
    for (const char* name : {"avx512_vnni", "avx_vnni", "amx_int8"})
        if (flags.find(name) != std::string::npos) return false;
    return true;
#else
    return false;
#endif
}

std::vector<std::string> available_providers(const ort::Table& table, const RuntimeFacts& facts) {
    char** names = nullptr;
    int count = 0;
    check_onnxruntime(table, table(ort::kGetAvailableProviders, &names, &count), facts);
    const std::vector<std::string> found(names, names + count);
    check_onnxruntime(table, table(ort::kReleaseAvailableProviders, names, count), facts);
    return found;
}

void append_provider(const ort::Table& table, ort::SessionOptions* settings, const Options& options, RuntimeFacts* facts) {
    const bool is_long = options.provider.size() > sizeof kSuffix &&
                         options.provider.compare(options.provider.size() - (sizeof kSuffix - 1), std::string::npos, kSuffix) == 0;
    const auto lower = [](std::string word) {
        std::transform(word.begin(), word.end(), word.begin(), [](unsigned char letter) { return std::tolower(letter); });
        return word;
    };
    const std::string wanted = lower(is_long ? options.provider : options.provider + kSuffix);
    std::string here;
    facts->provider.clear();
    for (const auto& name : available_providers(table, *facts)) {
        if (lower(name) == wanted) facts->provider = name;
        here += (here.empty() ? "" : ", ") + name;
    }
    if (facts->provider.empty())
        throw Failure(kNotSupported, facts->library + " was built without the execution provider '" + options.provider +
                                         "'; it has " + here + ". Use one of them, or a library with that provider (--library).");
    if (facts->provider == kCpu) return;
    std::vector<const char*> keys, values;
    for (const auto& [key, value] : options.provider_options) {
        keys.push_back(key.c_str());
        values.push_back(value.c_str());
    }
    const std::string name = facts->provider.substr(0, facts->provider.size() - (sizeof kSuffix - 1));
    ort::Status* status = table(ort::kAppendExecutionProvider, settings, name.c_str(), keys.data(), values.data(), keys.size());
    if (status != nullptr)
        throw Failure(kNotSupported, "ONNX Runtime cannot use '" + facts->provider + "' here: " + take_status(table, status).second);
}

}  // namespace

Library open_onnxruntime(const std::string& path) {
    return path.empty() ? Library::find({"libonnxruntime.so", "libonnxruntime.so.1"}, "ONNX Runtime") : Library(path);
}

ort::Table onnxruntime_table(const Library& library, RuntimeFacts* facts) {
    const auto* base = library.symbol<ort::GetApiBase>("OrtGetApiBase")();
    facts->name = "onnxruntime";
    facts->version = base->version();
    facts->library = library.path();
    const void* const* places = base->get_table(ort::kTableVersion);
    if (places == nullptr)
        throw Failure(kNotSupported, library.path() + " is ONNX Runtime " + facts->version + "; 1.12 or newer is needed.");
    return ort::Table(places);
}

std::pair<int, std::string> take_status(const ort::Table& table, ort::Status* status) {
    std::pair<int, std::string> found{table(ort::kGetErrorCode, status), table(ort::kGetErrorMessage, status)};
    table(ort::kReleaseStatus, status);
    std::replace(found.second.begin(), found.second.end(), '\n', ' ');
    return found;
}

void check_onnxruntime(const ort::Table& table, ort::Status* status, const RuntimeFacts& facts) {
    if (status != nullptr) throw Failure(kNotSupported, "ONNX Runtime " + facts.version + ": " + take_status(table, status).second);
}

void apply_settings(const ort::Table& table, ort::SessionOptions* settings, const Options& options, RuntimeFacts* facts) {
    const auto level = kLevels.find(options.optimization);
    if (level == kLevels.end())
        throw Failure(kUsage, "--optimization is '" + options.optimization + "'; known: all, extended, basic, none.");
    const auto check = [&](ort::Status* status) { check_onnxruntime(table, status, *facts); };
    const auto entry = [&](const char* key, const char* value) {
        check(table(ort::kAddSessionConfigEntry, settings, key, value));
        facts->options[key] = value;
    };
    check(table(ort::kSetIntraOpNumThreads, settings, options.threads));
    check(table(ort::kSetInterOpNumThreads, settings, 1));
    check(table(ort::kSetSessionExecutionMode, settings, ort::kSequential));
    check(table(ort::kSetSessionGraphOptimizationLevel, settings, level->second));
    check(table(ort::kSetSessionLogSeverityLevel, settings, ort::kLogFatal));  // what goes wrong comes as a status too
    entry("session.intra_op.allow_spinning", options.spinning ? "1" : "0");
    entry("session.x64quantprecision", sums_saturate() ? "1" : "0");
    facts->options["optimization"] = options.optimization;
    facts->provider = kCpu;
    if (!options.provider.empty()) append_provider(table, settings, options, facts);
}

}  // namespace runner
