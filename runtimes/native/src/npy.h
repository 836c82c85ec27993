// NumPy's .npy format (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), versions 1 to 3: plain arrays
// in C order and little-endian, which is what edgekit writes. Everything else is refused: no pickled objects, no surprises.
#pragma once

#include <string>

#include "files.h"
#include "tensor.h"

namespace runner {

// An array whose values stay in the file; fails (exit code 2) where the file is not one, or its header and its size disagree.
class NpyReader {
public:
    explicit NpyReader(const std::string& path);
    DType dtype() const { return array_.dtype; }
    const Shape& shape() const { return array_.shape; }
    Tensor read() const;                     // all of it
    Tensor read_row(std::size_t row) const;  // one place of its first axis, without that axis

private:
    FileReader file_;
    Tensor array_;  // without values
    std::size_t offset_ = 0;
};

// The file's first bytes, up to the values.
std::string npy_header(DType dtype, const Shape& shape);

// The header alone, for a file's first bytes: what `NpyReader` checks before anything else.
// Returns the offset of the values; `source` is for messages.
std::size_t parse_npy_header(const std::string& bytes, const std::string& source, Tensor* found);

}  // namespace runner
