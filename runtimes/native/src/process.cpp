#include "process.h"

#include <dirent.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "failure.h"
#include "files.h"

namespace runner {
namespace {

std::int64_t read_clock(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return std::int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

int cpu_number(const std::string& word, const std::string& words) {
    const bool is_number = !word.empty() && word.size() <= 4 && word.find_first_not_of("0123456789") == std::string::npos;
    const int cpu = is_number ? std::atoi(word.c_str()) : -1;
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        throw Failure(kUsage, "--affinity is '" + words + "'; write processors as 0,2-3, each below 1024.");
    return cpu;
}

}  // namespace

std::int64_t wall_ns() { return read_clock(CLOCK_MONOTONIC); }

std::int64_t cpu_ns() { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }

std::int64_t peak_memory_bytes() {
    std::string status;
    try {
        status = read_special_file("/proc/self/status");
    } catch (const Failure&) {
        return 0;
    }
    const auto place = status.find("VmHWM:");
    return place == std::string::npos ? 0 : std::strtoll(status.c_str() + place + 6, nullptr, 10) * 1024;
}

void limit_memory(std::int64_t bytes) {
    const rlimit limit{static_cast<rlim_t>(bytes), static_cast<rlim_t>(bytes)};
    if (setrlimit(RLIMIT_DATA, &limit) != 0)
        throw Failure(kUsage, std::string("--memory-limit cannot be set here: ") + std::strerror(errno));
}

Switches context_switches() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return {usage.ru_nivcsw, usage.ru_nvcsw};
}

std::int64_t waited_ns() {
    DIR* tasks = opendir("/proc/self/task");
    if (tasks == nullptr) return -1;
    std::int64_t total = 0;
    while (const dirent* task = readdir(tasks)) {
        if (task->d_name[0] == '.') continue;
        long long ran = 0, waited = 0;
        try {
            const std::string words = read_special_file(std::string("/proc/self/task/") + task->d_name + "/schedstat");
            total = std::sscanf(words.c_str(), "%lld %lld", &ran, &waited) == 2 && total >= 0 ? total + waited : -1;
        } catch (const Failure&) {
            total = -1;
        }
    }
    closedir(tasks);
    return total;
}

std::vector<int> parse_cpu_list(const std::string& words) {
    std::vector<int> cpus;
    for (std::size_t start = 0; start <= words.size();) {
        const std::size_t comma = std::min(words.find(',', start), words.size());
        const std::string part = words.substr(start, comma - start);
        const std::size_t dash = part.find('-');
        const int first = cpu_number(part.substr(0, dash), words);
        const int last = dash == std::string::npos ? first : cpu_number(part.substr(dash + 1), words);
        if (last < first) throw Failure(kUsage, "--affinity is '" + words + "': " + part + " runs backwards.");
        for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
        start = comma + 1;
    }
    return cpus;
}

void set_affinity(const std::vector<int>& cpus) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int cpu : cpus) CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        throw Failure(kUsage, std::string("the processors of --affinity cannot be used here: ") + std::strerror(errno));
}

std::vector<std::int64_t> affinity() {
    cpu_set_t set;
    CPU_ZERO(&set);
    std::vector<std::int64_t> cpus;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    return cpus;
}

std::int64_t processor_count() { return std::max<std::int64_t>(sysconf(_SC_NPROCESSORS_ONLN), 1); }

std::string machine() {
    utsname names{};
    uname(&names);
    return std::string(names.sysname) + " " + names.release + " " + names.machine;
}

}  // namespace runner
