#include "rounds.h"

#include <algorithm>
#include <cmath>

#include "process.h"

namespace runner {
namespace {

constexpr std::int64_t kLongestBlock = 2000;
constexpr int kTrialRuns = 3;
constexpr std::size_t kRoundsToJudge = 25;
constexpr double kPrecision = 0.01;
constexpr double kZ95 = 1.959963984540054;

std::int64_t once_ns(Model& model) {
    const std::int64_t start = wall_ns();
    model.invoke();
    return std::max<std::int64_t>(wall_ns() - start, 100);
}

std::int64_t choose_length(Model& model, double block_seconds) {
    const double block_ns = block_seconds * 1e9;
    std::int64_t once = once_ns(model);
    if (static_cast<double>(once) < block_ns) {  // worth knowing better: any inference may be interrupted
        once = INT64_MAX;
        for (int trial = 0; trial < kTrialRuns; ++trial) once = std::min(once, once_ns(model));
    }
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(block_ns / static_cast<double>(once)), 1, kLongestBlock);
}

// A block; its median. One inference before it is not counted: the other models' data are in the caches.
std::int64_t take_block(Model& model, std::int64_t number, Series* series) {
    if (series->inferences_in_block > 1) model.invoke();
    const std::int64_t before = context_switches().involuntary;
    const auto first = static_cast<std::ptrdiff_t>(series->wall_ns.size());
    for (std::int64_t index = 0; index < series->inferences_in_block; ++index) {
        const std::int64_t cpu_start = cpu_ns(), start = wall_ns();
        model.invoke();
        const std::int64_t end = wall_ns();
        series->cpu_ns.push_back(cpu_ns() - cpu_start);
        series->wall_ns.push_back(end - start);
        series->round.push_back(number);
    }
    series->preemptions += context_switches().involuntary - before;
    std::vector<std::int64_t> block(series->wall_ns.begin() + first, series->wall_ns.end());
    const auto middle = block.begin() + static_cast<std::ptrdiff_t>(block.size() / 2);
    std::nth_element(block.begin(), middle, block.end());
    return *middle;
}

// Whether a model's median is known to ±1 %: the distribution-free 95 % interval of the later two thirds' round medians,
// by order statistics (normal approximation of the binomial rank).
bool is_known(const std::vector<std::int64_t>& medians) {
    std::vector<std::int64_t> recent(medians.begin() + static_cast<std::ptrdiff_t>(medians.size() / 3), medians.end());
    std::sort(recent.begin(), recent.end());
    const auto count = static_cast<double>(recent.size());
    const double half = kZ95 * std::sqrt(count) / 2;
    const auto low = static_cast<std::size_t>(std::max(std::floor(count / 2 - half) - 1, 0.0));
    const auto high = static_cast<std::size_t>(std::min(std::ceil(count / 2 + half), count - 1));
    const double middle = static_cast<double>(recent[(recent.size() - 1) / 2] + recent[recent.size() / 2]) / 2;
    return static_cast<double>(recent[high] - recent[low]) <= 2 * kPrecision * middle;
}

}  // namespace

Rounds time_rounds(const std::vector<Model*>& models, const RoundsPlan& plan) {
    Rounds found;
    found.series.resize(models.size());
    std::vector<std::vector<std::int64_t>> medians(models.size());
    for (std::size_t index = 0; index < models.size(); ++index)
        found.series[index].inferences_in_block = choose_length(*models[index], plan.block_seconds);
    const std::int64_t start = wall_ns();
    const auto is_over = [&] {
        if (found.made < plan.fewest) return false;
        found.is_precise = plan.ends_when_precise && medians[0].size() >= kRoundsToJudge &&
                           std::all_of(medians.begin(), medians.end(), is_known);
        return found.is_precise || static_cast<double>(wall_ns() - start) >= plan.seconds * 1e9;
    };
    for (; !is_over(); ++found.made)
        for (std::size_t place = 0; place < models.size(); ++place) {
            const std::size_t index = found.made % 2 == 0 ? place : models.size() - 1 - place;
            medians[index].push_back(take_block(*models[index], found.made, &found.series[index]));
        }
    return found;
}

}  // namespace runner
