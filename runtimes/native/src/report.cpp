#include "report.h"

#include <algorithm>
#include <numeric>

#include "process.h"

namespace runner {

const char kVersion[] = "1.0.0";

namespace {

void write_tensor(const TensorInfo& info, Json* json) {
    json->text("name", info.name).text("dtype", facts(info.dtype).name).numbers("shape", info.shape);
    if (info.grid) json->number("scale", info.grid->scale).number("zero_point", info.grid->zero_point);
}

void write_runtime(const Model& model, Json* json) {
    const auto& runtime = model.runtime();
    json->object("runtime").text("name", runtime.name).text("version", runtime.version).text("library", runtime.library);
    json->text("provider", runtime.provider).object("options");
    for (const auto& [name, value] : runtime.options) json->text(name.c_str(), value);
    json->end().end();
}

void write_options(const Arguments& arguments, Json* json) {
    json->object("options").number("threads", std::int64_t{arguments.options.threads}).numbers("affinity", affinity());
    json->number("warm_up", arguments.plan.warm_up).number("repeat", arguments.plan.repeat);
    json->number("seconds", arguments.plan.seconds).end();
}

void write_edges(const Model& model, const Report& report, Json* json) {
    json->array("inputs");
    for (std::size_t index = 0; index < model.inputs().size(); ++index) {
        json->object();
        write_tensor(model.inputs()[index], json);
        if (index < report.input_sha256.size()) json->text("sha256", report.input_sha256[index]);
        json->end();
    }
    json->end().array("outputs");
    for (std::size_t index = 0; index < model.outputs().size(); ++index) {
        json->object();
        write_tensor(model.outputs()[index], json);
        if (index < report.outputs.size()) {
            const auto& output = report.outputs[index];
            json->text("sha256", output.sha256).numbers("found_shape", output.shape);
            if (!output.file.empty()) json->text("file", output.file);
        }
        json->end();
    }
    json->end();
}

void write_audit(const Audit& audit, Json* json) {
    json->object("audit").number("inferences_in_block", audit.inferences);
    json->numbers("bare_wall_ns", audit.bare_wall_ns).numbers("sampled_wall_ns", audit.sampled_wall_ns);
    json->numbers("bare_cpu_ns", audit.bare_cpu_ns).numbers("sampled_cpu_ns", audit.sampled_cpu_ns);
    json->numbers("reported_ns", audit.reported_ns).end();
}

void write_series(const Series& series, const std::string& path, const std::string& digest, Json* json) {
    json->object().text("path", path).text("sha256", digest).number("preemptions", series.preemptions);
    json->numbers("lengths", series.lengths).numbers("waited_ns", series.waited_ns);
    json->numbers("wall_ns", series.wall_ns).numbers("cpu_ns", series.cpu_ns).end();
}

void write_rounds(const Arguments& arguments, const Report& report, Json* json) {
    const Rounds& rounds = *report.rounds;
    json->object("rounds").text("clock", "CLOCK_MONOTONIC").number("block_ms", arguments.rounds.block_seconds * 1e3);
    json->flag("is_precise", rounds.is_precise).numbers("loads", rounds.loads).numbers("clocks_khz", rounds.clocks_khz);
    json->array("models");
    write_series(rounds.series[0], arguments.model, report.model_sha256, json);
    for (std::size_t index = 0; index < report.beside.size(); ++index)
        write_series(rounds.series[index + 1], report.beside[index].path, report.beside[index].sha256, json);
    json->end().end();
}

void write_conditions(const Conditions& conditions, Json* json) {
    json->array("temperatures");
    for (const auto& one : conditions.temperatures) json->object().text("zone", one.zone).number("celsius", one.celsius).end();
    json->end().array("clocks");
    for (const auto& one : conditions.clocks)
        json->object().text("processors", one.policy).text("governor", one.governor).number("mhz", one.mhz).end();
    json->end().number("busy_s", conditions.busy_s).number("steal_s", conditions.steal_s);
    json->number("pressure_s", conditions.pressure_s);
}

void write_sustained(const Sustained& sustained, Json* json) {
    json->object("sustained").number("inferences", sustained.inferences).array("windows");
    for (const auto& window : sustained.windows) {
        json->object().number("start_ns", window.start_ns).number("wall_ns", window.wall_ns);
        json->number("inferences", window.inferences).number("p50_ns", window.p50_ns).number("p90_ns", window.p90_ns);
        json->number("cpu_ns", window.cpu_ns).number("waited_ns", window.waited_ns);
        write_conditions(window.conditions, json);
        json->end();
    }
    json->end().end();
}

void write_memory(const Report& report, Json* json) {
    json->object("memory").number("before_load_bytes", report.memory_before_load_bytes);
    json->number("after_load_bytes", report.memory_after_load_bytes);
    if (report.reload) json->number("after_first_bytes", report.reload->memory_bytes);
    json->number("peak_bytes", peak_memory_bytes()).end();
}

}  // namespace

void write_timing(const Timing& timing, Json* json) {
    std::vector<std::int64_t> ordered = timing.wall_ns;
    std::sort(ordered.begin(), ordered.end());
    const auto count = static_cast<std::int64_t>(ordered.size());
    const double sum = std::accumulate(ordered.begin(), ordered.end(), 0.0);
    const ClockCost cost = clock_cost();
    json->object("latency").text("clock", "CLOCK_MONOTONIC").number("sample_count", count);
    json->number("minimum_ns", ordered.front()).number("p50_ns", percentile(ordered, 50));
    json->number("p90_ns", percentile(ordered, 90)).number("p99_ns", percentile(ordered, 99));
    json->number("maximum_ns", ordered.back()).number("mean_ns", sum / static_cast<double>(count));
    json->number("total_wall_ns", timing.total_wall_ns).number("total_cpu_ns", timing.total_cpu_ns);
    json->number("preemptions", timing.preemptions).number("waits", timing.waits);
    json->number("clock_cost_ns", cost.wall_ns).number("cpu_clock_cost_ns", cost.cpu_ns);
    json->numbers("samples_ns", timing.wall_ns);
    if (timing.cpu_ns.empty())
        json->null("cpu_samples_ns");
    else
        json->numbers("cpu_samples_ns", timing.cpu_ns);
    json->end();
}

std::string document(const Arguments& arguments, const Model& model, const Report& report) {
    Json json;
    json.object().number("schema_version", std::int64_t{1}).text("runner", kVersion).text("machine", machine());
    json.object("model").text("path", arguments.model).text("sha256", report.model_sha256);
    json.number("size_bytes", static_cast<std::int64_t>(report.model_size_bytes)).object("metadata");
    for (const auto& [key, value] : model.metadata()) json.text(key.c_str(), value);
    json.end().end();
    write_runtime(model, &json);
    write_options(arguments, &json);
    write_edges(model, report, &json);
    json.number("load_ns", report.load_ns).number("load_cpu_ns", report.load_cpu_ns);
    if (report.reload) json.number("reload_ns", report.reload->load_ns).number("reload_cpu_ns", report.reload->load_cpu_ns);
    if (report.cached_share) json.number("cached_share", *report.cached_share);
    if (report.first_inference_ns) {
        json.number("first_inference_ns", *report.first_inference_ns);
        json.number("sample_count", static_cast<std::int64_t>(report.sample_count));
        json.text("inputs_are", arguments.inputs.empty() ? "zeros" : "given");
    }
    if (report.timing) write_timing(*report.timing, &json);
    if (report.audit) write_audit(*report.audit, &json);
    if (report.rounds) write_rounds(arguments, report, &json);
    if (report.sustained) write_sustained(*report.sustained, &json);
    if (report.before && report.after) {
        json.object("conditions").number("processors", processor_count());
        json.number("wall_ns", report.timed_wall_ns).number("cpu_ns", report.timed_cpu_ns);
        write_conditions(*report.before, &json.object("before"));
        write_conditions(*report.after, &json.end().object("after"));
        json.end().end();
    }
    write_memory(report, &json);
    return json.end().str();
}

}  // namespace runner
