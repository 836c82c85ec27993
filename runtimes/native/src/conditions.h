// The state a device is in: temperatures and clocks, where the system lets them be read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace runner {

struct Temperature {
    std::string zone;   // the sensor's own name: "cpu-thermal"
    double celsius;
};

struct Clock {
    std::string policy;    // the processors that share it, as the system numbers them: "0-3"
    std::string governor;  // what chooses it: "schedutil"
    double mhz;
};

struct Conditions {
    std::vector<Temperature> temperatures;
    std::vector<Clock> clocks;
    double busy_s = -1;      // of all processors since the system started, without what follows; -1: the system does not tell
    double steal_s = -1;     // what the machine below this one gave to others
    double pressure_s = -1;  // in which some task waited for a processor
};

// Linux and Android: thermal zones and cpufreq policies below `system` ("/sys"), /proc/stat, /proc/pressure; what may not be read
// is left out.
Conditions read_conditions(const std::string& system);

// Mean clock of the policies, kHz; -1 where the system does not tell.
std::int64_t read_clock_khz(const std::string& system);

}  // namespace runner
