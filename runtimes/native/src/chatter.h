// Keeps what libraries write to the error stream while something is done, so that it is said only where it explains a failure.
#pragma once

#include <string>

namespace runner {

class Chatter {
public:
    Chatter();
    ~Chatter();
    Chatter(const Chatter&) = delete;
    Chatter& operator=(const Chatter&) = delete;

    // What was written so far, as the end of a sentence: ": word. Word." or ".".
    std::string words() const;

private:
    int kept_ = -1;  // the error stream itself
    int file_ = -1;
};

}  // namespace runner
