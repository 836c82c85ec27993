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
};

// Linux and Android: thermal zones and cpufreq policies below `system` ("/sys"); what may not be read is left out.
Conditions read_conditions(const std::string& system);

}  // namespace runner
