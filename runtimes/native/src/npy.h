// NumPy's .npy format (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), versions 1 to 3: plain arrays
// in C order and little-endian, which is what edgekit writes. Everything else is refused: no pickled objects, no surprises.
#pragma once

#include <string>

#include "tensor.h"

namespace runner {

// Reads a whole array; fails (exit code 2) where the file is not one, or its header and its size disagree.
Tensor read_npy(const std::string& path);
void write_npy(const std::string& path, const Tensor& tensor);

// The header alone, for a file's first bytes: what `read_npy` checks before it takes memory.
// Returns the offset of the values; `source` is for messages.
std::size_t parse_npy_header(const std::string& bytes, const std::string& source, Tensor* found);

}  // namespace runner
