// SHA-256 (FIPS 180-4).
#pragma once

#include <cstddef>
#include <string>

namespace runner {

std::string sha256(const void* data, std::size_t size);  // lower-case hexadecimal

}  // namespace runner
