#include "tensor.h"

#include <array>
#include <cstring>
#include <limits>

#include "failure.h"

namespace runner {
namespace {

constexpr std::array<DTypeFacts, 9> kFacts{{
    {DType::kBool, "bool", "|b1", 1, 9, 6},
    {DType::kInt8, "int8", "|i1", 1, 3, 9},
    {DType::kUInt8, "uint8", "|u1", 1, 2, 3},
    {DType::kInt16, "int16", "<i2", 2, 5, 7},
    {DType::kInt32, "int32", "<i4", 4, 6, 2},
    {DType::kInt64, "int64", "<i8", 8, 7, 4},
    {DType::kFloat16, "float16", "<f2", 2, 10, 10},
    {DType::kFloat32, "float32", "<f4", 4, 1, 1},
    {DType::kFloat64, "float64", "<f8", 8, 11, 11},
}};

template <typename Predicate>
std::optional<DType> find(Predicate matches) {
    for (const auto& row : kFacts)
        if (matches(row)) return row.dtype;
    return std::nullopt;
}

}  // namespace

const DTypeFacts& facts(DType dtype) {
    for (const auto& row : kFacts)
        if (row.dtype == dtype) return row;
    throw Failure(kBug, "an element type is not in the table");
}

std::optional<DType> dtype_of_name(const std::string& name) {
    return find([&](const DTypeFacts& row) { return name == row.name; });
}

std::optional<DType> dtype_of_description(const std::string& description) {
    return find([&](const DTypeFacts& row) { return description == row.description; });
}

std::optional<DType> dtype_of_onnx(int code) {
    return find([&](const DTypeFacts& row) { return code == row.onnx; });
}

std::optional<DType> dtype_of_tflite(int code) {
    return find([&](const DTypeFacts& row) { return code == row.tflite; });
}

std::size_t element_count(const Shape& shape) {
    std::size_t count = 1;
    // 2^48 elements are beyond any machine here, and leave room for the size of an element.
    constexpr std::size_t kLimit = std::size_t{1} << 48;
    for (const auto size : shape) {
        if (size < 0) throw Failure(kUsage, "shape " + text(shape) + " has a negative size");
        if (size != 0 && count > kLimit / static_cast<std::size_t>(size))
            throw Failure(kUsage, "shape " + text(shape) + " has too many elements");
        count *= static_cast<std::size_t>(size);
    }
    return count;
}

std::string text(const Shape& shape) {
    std::string words = "[";
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
        words += (axis == 0 ? "" : ", ") + (shape[axis] < 0 ? std::string("?") : std::to_string(shape[axis]));
    return words + "]";
}

Tensor zeros(DType dtype, const Shape& shape) {
    Tensor tensor{dtype, shape, {}};
    for (auto& size : tensor.shape)
        if (size < 0) size = 1;
    tensor.bytes.assign(element_count(tensor.shape) * facts(dtype).size_bytes, 0);
    return tensor;
}

void check_fits(const Tensor& tensor, const TensorInfo& input) {
    bool fits = tensor.dtype == input.dtype && tensor.shape.size() == input.shape.size();
    for (std::size_t axis = 0; fits && axis < input.shape.size(); ++axis)
        fits = input.shape[axis] < 0 || input.shape[axis] == tensor.shape[axis];
    if (!fits)
        throw Failure(kUsage, "input '" + input.name + "' expects " + facts(input.dtype).name + " " + text(input.shape) +
                                  ", and was given " + facts(tensor.dtype).name + " " + text(tensor.shape));
}

}  // namespace runner
