#include "conditions.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "failure.h"
#include "files.h"

namespace runner {
namespace {

// A file's one line; empty where it cannot be read, as Android refuses some sensors.
std::string line_of(const std::string& path) {
    try {
        const std::string text = read_special_file(path);
        return text.substr(0, text.find('\n'));
    } catch (const Failure&) {
        return "";
    }
}

// A whole number in a file; false where there is none.
bool read_number(const std::string& path, double* found) {
    const std::string line = line_of(path);
    char* end = nullptr;
    *found = std::strtod(line.c_str(), &end);
    return !line.empty() && *end == '\0';
}

// Folders of `parent` whose names begin so, in the order of their numbers.
std::vector<std::string> numbered_folders(const std::string& parent, const std::string& beginning) {
    std::vector<std::string> names;
    DIR* folder = opendir(parent.c_str());
    if (folder == nullptr) return names;
    while (const dirent* entry = readdir(folder))
        if (std::string(entry->d_name).compare(0, beginning.size(), beginning) == 0) names.emplace_back(entry->d_name);
    closedir(folder);
    const auto number = [&](const std::string& name) { return std::atoi(name.c_str() + beginning.size()); };
    std::sort(names.begin(), names.end(), [&](const auto& one, const auto& other) { return number(one) < number(other); });
    for (auto& name : names) name = parent + "/" + name;
    return names;
}

// /proc/stat: user, nice, system, idle, iowait, irq, softirq and steal of all processors, in ticks (proc_stat(5)).
void read_times(Conditions* found) {
    std::istringstream words(line_of("/proc/stat"));
    std::string name;
    double ticks[8] = {};
    words >> name;
    for (auto& value : ticks) words >> value;
    if (words.fail() || name != "cpu") return;
    const auto second = static_cast<double>(sysconf(_SC_CLK_TCK));
    found->busy_s = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / second;
    found->steal_s = ticks[7] / second;
}

// /proc/pressure/cpu: some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS (Documentation/accounting/psi)
void read_pressure(Conditions* found) {
    const std::string line = line_of("/proc/pressure/cpu");
    const auto place = line.find("total=");
    if (place != std::string::npos) found->pressure_s = std::atof(line.c_str() + place + 6) / 1e6;
}

}  // namespace

std::int64_t read_clock_khz(const std::string& system) {
    double sum = 0, value = 0;
    std::int64_t count = 0;
    for (const auto& policy : numbered_folders(system + "/devices/system/cpu/cpufreq", "policy")) {
        if (!read_number(policy + "/scaling_cur_freq", &value)) continue;
        sum += value;
        ++count;
    }
    return count == 0 ? -1 : static_cast<std::int64_t>(sum / static_cast<double>(count));
}

Conditions read_conditions(const std::string& system) {
    Conditions found;
    double value = 0;
    for (const auto& zone : numbered_folders(system + "/class/thermal", "thermal_zone"))
        if (read_number(zone + "/temp", &value))  // thousandths of a degree, says Documentation/ABI/testing/sysfs-class-thermal
            found.temperatures.push_back({line_of(zone + "/type"), value / 1e3});
    for (const auto& policy : numbered_folders(system + "/devices/system/cpu/cpufreq", "policy"))
        if (read_number(policy + "/scaling_cur_freq", &value))  // kHz, says Documentation/admin-guide/pm/cpufreq
            found.clocks.push_back({line_of(policy + "/affected_cpus"), line_of(policy + "/scaling_governor"), value / 1e3});
    read_times(&found);
    read_pressure(&found);
    return found;
}

}  // namespace runner
