#include "timing.h"

#include <algorithm>
#include <cmath>

#include "process.h"

namespace runner {
namespace {

constexpr std::int64_t kSampleLimit = 1000000;
// Short, so that most blocks run through without being preempted and the median is of undisturbed ones.
constexpr std::int64_t kAuditBlockNs = 2000000;

template <typename Clock>
std::int64_t median_cost(Clock clock) {
    std::vector<std::int64_t> costs;
    for (int index = 0; index < 501; ++index) {
        const std::int64_t start = wall_ns();
        for (int again = 0; again < 20; ++again) clock();
        costs.push_back((wall_ns() - start) / 20);
    }
    std::nth_element(costs.begin(), costs.begin() + 250, costs.end());
    return costs[250];
}

// Process time is a system call: it is read around each sample only where that disappears beside the inference.
bool is_cpu_clock_free(Model& model) {
    const std::int64_t start = wall_ns();
    model.invoke();
    return wall_ns() - start >= 200 * 2 * clock_cost().cpu_ns;
}

void take_samples(Model& model, std::int64_t count, std::int64_t deadline_ns, bool with_cpu, Timing* timing) {
    std::int64_t start = wall_ns();
    for (std::int64_t index = 0; index < count; ++index) {
        const std::int64_t cpu_start = with_cpu ? cpu_ns() : 0;
        if (with_cpu) start = wall_ns();
        model.invoke();
        const std::int64_t end = wall_ns();
        if (with_cpu) timing->cpu_ns.push_back(cpu_ns() - cpu_start);
        timing->wall_ns.push_back(end - start);
        start = end;  // one reading between two inferences: what is lost there, keeping a number, is a few nanoseconds
        if (end >= deadline_ns) break;
    }
}

}  // namespace

ClockCost clock_cost() { return {median_cost(wall_ns), median_cost(cpu_ns)}; }

Timing time_inferences(Model& model, const TimingPlan& plan) {
    for (std::int64_t index = 0; index < plan.warm_up; ++index) model.invoke();
    const bool with_cpu = is_cpu_clock_free(model);
    const std::int64_t count = plan.repeat > 0 ? plan.repeat : kSampleLimit;
    Timing timing;
    timing.wall_ns.reserve(static_cast<std::size_t>(std::min<std::int64_t>(count, 65536)));
    if (with_cpu) timing.cpu_ns.reserve(timing.wall_ns.capacity());
    const Switches before = context_switches();
    const std::int64_t cpu_start = cpu_ns(), start = wall_ns();
    const std::int64_t deadline = plan.seconds > 0 ? start + static_cast<std::int64_t>(plan.seconds * 1e9) : INT64_MAX;
    take_samples(model, count, deadline, with_cpu, &timing);
    timing.total_wall_ns = wall_ns() - start;
    timing.total_cpu_ns = cpu_ns() - cpu_start;
    const Switches after = context_switches();
    timing.preemptions = after.involuntary - before.involuntary;
    timing.waits = after.voluntary - before.voluntary;
    return timing;
}

Audit audit_overhead(Model& model, std::int64_t pairs) {
    std::int64_t start = wall_ns();
    model.invoke();
    const std::int64_t once = std::max<std::int64_t>(wall_ns() - start, 100);
    const bool with_cpu = is_cpu_clock_free(model);
    Audit audit{};
    audit.inferences = std::max<std::int64_t>(1, kAuditBlockNs / once);
    const auto bare = [&] {
        const std::int64_t cpu = cpu_ns(), begin = wall_ns();
        for (std::int64_t index = 0; index < audit.inferences; ++index) model.invoke();
        audit.bare_wall_ns.push_back(wall_ns() - begin);
        audit.bare_cpu_ns.push_back(cpu_ns() - cpu);
    };
    const auto sampled = [&] {
        Timing timing;
        timing.wall_ns.reserve(static_cast<std::size_t>(audit.inferences));
        if (with_cpu) timing.cpu_ns.reserve(static_cast<std::size_t>(audit.inferences));
        const std::int64_t cpu = cpu_ns(), begin = wall_ns();
        take_samples(model, audit.inferences, INT64_MAX, with_cpu, &timing);
        audit.sampled_wall_ns.push_back(wall_ns() - begin);
        audit.sampled_cpu_ns.push_back(cpu_ns() - cpu);
        std::int64_t sum = 0;
        for (const auto value : timing.wall_ns) sum += value;
        audit.reported_ns.push_back(sum);
    };
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        if (pair % 2 == 0) bare();
        sampled();
        if (pair % 2 == 1) bare();
    }
    return audit;
}

double percentile(const std::vector<std::int64_t>& ordered, double percent) {
    const double place = percent / 100 * static_cast<double>(ordered.size() - 1);
    const auto below = static_cast<std::size_t>(std::floor(place));
    const auto above = std::min(below + 1, ordered.size() - 1);
    const auto low = static_cast<double>(ordered[below]), high = static_cast<double>(ordered[above]);
    return low + (high - low) * (place - static_cast<double>(below));
}

}  // namespace runner
