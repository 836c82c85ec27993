// Element types, what a tensor at the edge of a model looks like, and tensors with their values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace runner {

enum class DType { kBool, kInt8, kUInt8, kInt16, kInt32, kInt64, kFloat16, kFloat32, kFloat64 };

struct DTypeFacts {
    DType dtype;
    const char* name;         // as numpy spells it: "float32"
    const char* description;  // as the .npy format spells it, little-endian: "<f4"
    std::size_t size_bytes;
    int onnx;    // TensorProto.DataType, the same numbers as ONNXTensorElementDataType
    int tflite;  // TfLiteType, the same numbers as LiteRtElementType
};

const DTypeFacts& facts(DType dtype);
std::optional<DType> dtype_of_name(const std::string& name);
std::optional<DType> dtype_of_description(const std::string& description);
std::optional<DType> dtype_of_onnx(int code);
std::optional<DType> dtype_of_tflite(int code);

using Shape = std::vector<std::int64_t>;

// Product of the sizes; fails where one is negative or the product does not fit.
std::size_t element_count(const Shape& shape);
std::string text(const Shape& shape);  // "[1, 3, 224, 224]"

struct Grid {  // real = scale * (integer - zero_point)
    double scale;
    std::int64_t zero_point;
};

struct TensorInfo {
    std::string name;
    DType dtype;
    Shape shape;  // -1: the caller chooses the size
    std::optional<Grid> grid;
};

struct Tensor {
    DType dtype = DType::kFloat32;
    Shape shape;
    std::vector<std::uint8_t> bytes;  // C order, little-endian
};

Tensor zeros(DType dtype, const Shape& shape);

// Fails unless the tensor's type and shape are those of the input.
void check_fits(const Tensor& tensor, const TensorInfo& input);

}  // namespace runner
