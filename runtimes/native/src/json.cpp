#include "json.h"

#include <cmath>
#include <cstdio>

namespace runner {
namespace {

// Length of a well-formed UTF-8 sequence at `place`, or 0.
std::size_t utf8_length(const std::string& value, std::size_t place) {
    const auto lead = static_cast<unsigned char>(value[place]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3
                               : lead >= 0xf0 && lead < 0xf5                                                   ? 4
                                                                                                               : 0;
    if (length == 0 || place + length > value.size()) return 0;
    for (std::size_t index = 1; index < length; ++index)
        if ((static_cast<unsigned char>(value[place + index]) & 0xc0) != 0x80) return 0;
    const auto second = length > 1 ? static_cast<unsigned char>(value[place + 1]) : 0;
    const bool is_overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
    const bool is_outside = (lead == 0xed && second >= 0xa0) || (lead == 0xf4 && second >= 0x90);
    return is_overlong || is_outside ? 0 : length;
}

std::string quoted(const std::string& value) {
    std::string out = "\"";
    for (std::size_t place = 0; place < value.size();) {
        const std::size_t length = utf8_length(value, place);
        const auto byte = static_cast<unsigned char>(value[place]);
        if (length == 0) {
            out += "\\ufffd";  // names in a model file may be any bytes; JSON must not be
        } else if (byte == '"' || byte == '\\') {
            out += {'\\', value[place]};
        } else if (byte < 0x20) {
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
            out += escaped;
        } else {
            out.append(value, place, length);
        }
        place += length == 0 ? 1 : length;
    }
    return out + "\"";
}

}  // namespace

Json& Json::end() {
    out_ += closers_.back();
    closers_.pop_back();
    is_first_ = false;
    return *this;
}

Json& Json::text(const char* key, const std::string& value) { return raw(key, quoted(value)); }

Json& Json::number(const char* key, double value) {
    char digits[40] = "null";  // JSON has no infinity
    if (std::isfinite(value)) std::snprintf(digits, sizeof digits, "%.17g", value);
    return raw(key, digits);
}

Json& Json::numbers(const char* key, const std::vector<std::int64_t>& values) {
    std::string list = "[";
    for (std::size_t index = 0; index < values.size(); ++index) list += (index == 0 ? "" : ",") + std::to_string(values[index]);
    return raw(key, list + "]");
}

Json& Json::open(const char* key, char bracket) {
    begin_value(key);
    out_ += bracket;
    closers_ += bracket == '{' ? '}' : ']';
    is_first_ = true;
    return *this;
}

Json& Json::raw(const char* key, const std::string& value) {
    begin_value(key);
    out_ += value;
    return *this;
}

void Json::begin_value(const char* key) {
    if (!is_first_) out_ += ',';
    is_first_ = false;
    if (key != nullptr) out_ += quoted(key) + ":";
}

}  // namespace runner
