// What the operating system says of this process: clocks, memory, preemptions, processors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace runner {

std::int64_t wall_ns();  // CLOCK_MONOTONIC
std::int64_t cpu_ns();   // CLOCK_PROCESS_CPUTIME_ID: all threads
std::int64_t peak_memory_bytes();  // VmHWM; 0 where the system does not tell

void limit_memory(std::int64_t bytes);  // of its own, from now on: allocations beyond it fail

struct Switches {
    std::int64_t involuntary;  // the process was preempted
    std::int64_t voluntary;    // it waited
};
Switches context_switches();

// How long the threads of this process have been ready to run and did not (schedstat, second field); -1: the system does not say.
std::int64_t waited_ns();

// "0,2-3" -> {0, 2, 3}
std::vector<int> parse_cpu_list(const std::string& words);
void set_affinity(const std::vector<int>& cpus);
std::vector<std::int64_t> affinity();

std::int64_t processor_count();  // of the system

std::string machine();  // "Linux 6.1.0 aarch64"

}  // namespace runner
