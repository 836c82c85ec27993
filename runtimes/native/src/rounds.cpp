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
constexpr double kDisturbedShare = 0.02;  // of a block spent waiting for a processor: its round does not count
constexpr double kLoadingShare = 0.25;
constexpr double kZ95 = 1.959963984540054;

std::int64_t once_ns(Model& model) {
    const std::int64_t start = wall_ns();
    model.invoke();
    return std::max<std::int64_t>(wall_ns() - start, 100);
}

std::int64_t median(std::vector<std::int64_t> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// Rounds while they are made, over all loads.
class Work {
public:
    Work(const std::function<std::int64_t()>& clock_khz, std::size_t model_count) : clock_khz_(clock_khz), medians_(model_count) {
        found_.series.resize(model_count);
    }

    // Rounds of one load, one of `load_count`, until the time is up, or enough is known of all loads so far.
    void take(const std::vector<Model*>& models, const RoundsPlan& plan, std::int64_t load, std::int64_t load_count) {
        std::vector<std::int64_t> lengths;
        for (auto* model : models) lengths.push_back(choose_length(*model, plan.block_seconds));
        const std::int64_t fewest = (plan.fewest + load_count - 1) / load_count, start = wall_ns();
        const auto limit = static_cast<std::int64_t>(plan.seconds * 1e9 / static_cast<double>(load_count));
        for (std::int64_t made = 0; made < fewest || (wall_ns() - start < limit && !is_precise()); ++made)
            round(models, lengths, (made + load) % 2 != 0, load);
    }

    Rounds finish() {
        is_precise();
        return std::move(found_);
    }

private:
    void round(const std::vector<Model*>& models, const std::vector<std::int64_t>& lengths, bool is_reversed, std::int64_t load) {
        double worst = 0;
        for (std::size_t place = 0; place < models.size(); ++place) {
            const std::size_t index = is_reversed ? models.size() - 1 - place : place;
            const Block block = take_block(*models[index], lengths[index]);
            Series& series = found_.series[index];
            series.wall_ns.insert(series.wall_ns.end(), block.wall_ns.begin(), block.wall_ns.end());
            series.cpu_ns.insert(series.cpu_ns.end(), block.cpu_ns.begin(), block.cpu_ns.end());
            series.lengths.push_back(lengths[index]);
            series.waited_ns.push_back(block.waited_ns);
            series.preemptions += block.preemptions;
            medians_[index].push_back(median(block.wall_ns));
            std::int64_t sum = 1;
            for (const auto value : block.wall_ns) sum += value;
            worst = std::max(worst, static_cast<double>(block.waited_ns) / static_cast<double>(sum));
        }
        is_quiet_.push_back(worst <= kDisturbedShare);
        found_.loads.push_back(load);
        found_.clocks_khz.push_back(clock_khz_());
    }

    // Whether every median is known to ±1 %, by the quiet rounds; by all of them, where most are not quiet.
    bool is_precise() {
        const auto quiet = static_cast<std::size_t>(std::count(is_quiet_.begin(), is_quiet_.end(), true));
        const bool takes_all = 2 * quiet < is_quiet_.size();
        const auto is_enough = [&](const auto& medians) { return is_known(medians, takes_all); };
        found_.is_precise = is_quiet_.size() >= kRoundsToJudge && std::all_of(medians_.begin(), medians_.end(), is_enough);
        return found_.is_precise;
    }

    // The median's distribution-free 95 % interval, by order statistics (normal approximation of the binomial rank).
    bool is_known(const std::vector<std::int64_t>& all, bool takes_all) const {
        std::vector<std::int64_t> medians;
        for (std::size_t index = 0; index < all.size(); ++index)
            if (takes_all || is_quiet_[index]) medians.push_back(all[index]);
        std::sort(medians.begin(), medians.end());
        const auto count = static_cast<double>(medians.size());
        const double half = kZ95 * std::sqrt(count) / 2;
        const auto low = static_cast<std::size_t>(std::max(std::floor(count / 2 - half) - 1, 0.0));
        const auto high = static_cast<std::size_t>(std::min(std::ceil(count / 2 + half), count - 1));
        const double middle = static_cast<double>(medians[(medians.size() - 1) / 2] + medians[medians.size() / 2]) / 2;
        return static_cast<double>(medians[high] - medians[low]) <= 2 * kPrecision * middle;
    }

    const std::function<std::int64_t()>& clock_khz_;
    std::vector<std::vector<std::int64_t>> medians_;  // of each model's blocks
    std::vector<bool> is_quiet_;                      // one a round
    Rounds found_;
};

}  // namespace

std::int64_t choose_length(Model& model, double seconds) {
    const double block_ns = seconds * 1e9;
    std::int64_t once = once_ns(model);
    if (static_cast<double>(once) < block_ns) {  // worth knowing better: any inference may be interrupted
        once = INT64_MAX;
        for (int trial = 0; trial < kTrialRuns; ++trial) once = std::min(once, once_ns(model));
    }
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(block_ns / static_cast<double>(once)), 1, kLongestBlock);
}

Block take_block(Model& model, std::int64_t length) {
    if (length > 1) model.invoke();
    Block block;
    block.wall_ns.reserve(static_cast<std::size_t>(length));
    block.cpu_ns.reserve(static_cast<std::size_t>(length));
    const std::int64_t preemptions = context_switches().involuntary, waited = waited_ns();
    for (std::int64_t index = 0; index < length; ++index) {
        const std::int64_t cpu_start = cpu_ns(), start = wall_ns();
        model.invoke();
        const std::int64_t end = wall_ns();
        block.cpu_ns.push_back(cpu_ns() - cpu_start);
        block.wall_ns.push_back(end - start);
    }
    if (const std::int64_t after = waited_ns(); waited >= 0 && after >= 0)
        block.waited_ns = std::max<std::int64_t>(after - waited, 0);
    block.preemptions = context_switches().involuntary - preemptions;
    return block;
}

Rounds time_rounds(const std::function<std::vector<Model*>(bool)>& open, const std::function<std::int64_t()>& clock_khz,
                   const RoundsPlan& plan) {
    std::int64_t start = wall_ns();
    std::vector<Model*> models = open(false);
    const double loading_s = static_cast<double>(std::max<std::int64_t>(wall_ns() - start, 1)) / 1e9;
    const double affordable = std::min(1 + kLoadingShare * plan.seconds / loading_s, 1e6);
    const auto count = std::clamp<std::int64_t>(static_cast<std::int64_t>(affordable), 1, std::min(plan.loads, plan.fewest));
    Work work(clock_khz, models.size());
    for (std::int64_t load = 0; load < count; ++load) {
        if (load > 0) models = open(load % 2 != 0);
        work.take(models, plan, load, count);
    }
    return work.finish();
}

}  // namespace runner
