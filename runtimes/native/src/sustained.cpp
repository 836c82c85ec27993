#include "sustained.h"

#include <algorithm>

#include "process.h"
#include "rounds.h"
#include "timing.h"

namespace runner {
namespace {

constexpr double kBlockSeconds = 0.1;

Window take_window(Model& model, std::int64_t length, double seconds, std::int64_t* inferences) {
    Window window{};
    std::vector<std::int64_t> walls, cpus;
    const std::int64_t start = wall_ns();
    while (walls.empty() || static_cast<double>(wall_ns() - start) < seconds * 1e9) {
        const Block block = take_block(model, length);
        walls.insert(walls.end(), block.wall_ns.begin(), block.wall_ns.end());
        cpus.insert(cpus.end(), block.cpu_ns.begin(), block.cpu_ns.end());
        window.waited_ns = block.waited_ns < 0 ? -1 : window.waited_ns + block.waited_ns;
        *inferences += length + (length > 1 ? 1 : 0);
    }
    window.wall_ns = wall_ns() - start;
    window.inferences = static_cast<std::int64_t>(walls.size());
    std::sort(walls.begin(), walls.end());
    std::sort(cpus.begin(), cpus.end());
    window.p50_ns = percentile(walls, 50);
    window.p90_ns = percentile(walls, 90);
    window.cpu_ns = percentile(cpus, 50);
    return window;
}

}  // namespace

Sustained run_sustained(Model& model, const std::function<Conditions()>& look, const SustainedPlan& plan) {
    Sustained found;
    const std::int64_t length = choose_length(model, kBlockSeconds), start = wall_ns();
    for (std::int64_t passed = 0; static_cast<double>(passed) < plan.seconds * 1e9; passed = wall_ns() - start) {
        Window window = take_window(model, length, plan.window_seconds, &found.inferences);
        window.start_ns = passed;
        window.conditions = look();
        found.windows.push_back(std::move(window));
    }
    return found;
}

}  // namespace runner
