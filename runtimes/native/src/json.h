// Writes JSON; keys and values come in the order they are said.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace runner {

class Json {
public:
    Json& object(const char* key = nullptr) { return open(key, '{'); }
    Json& array(const char* key = nullptr) { return open(key, '['); }
    Json& end();  // closes what was opened last
    Json& text(const char* key, const std::string& value);
    Json& number(const char* key, std::int64_t value) { return raw(key, std::to_string(value)); }
    Json& number(const char* key, double value);
    Json& flag(const char* key, bool value) { return raw(key, value ? "true" : "false"); }
    Json& null(const char* key) { return raw(key, "null"); }
    Json& numbers(const char* key, const std::vector<std::int64_t>& values);
    const std::string& str() const { return out_; }

private:
    Json& open(const char* key, char bracket);
    Json& raw(const char* key, const std::string& value);
    void begin_value(const char* key);

    std::string out_;
    std::string closers_;
    bool is_first_ = true;
};

}  // namespace runner
