// The part of LiteRT's C interface that is used here (libLiteRt.so, LiteRT 2.2 and later).
//
// Since 2.1.6 `LiteRtCreateModelFromBuffer` takes the environment first. A library does not say its version; one that exports
// `kLiteRtRuntimeBuiltin`, which came with 2.2, has the newer form, and any other is refused.
// https://github.com/google-ai-edge/LiteRT/tree/main/litert/c
#pragma once

#include <cstddef>
#include <cstdint>

namespace runner::litert {

struct Environment;
struct ModelFile;
struct CompiledModel;
struct CompileOptions;
struct OpaqueOptions;
struct Signature;
struct Subgraph;
struct TensorHandle;
struct Buffer;
struct BufferRequirements;

constexpr char kNewerThan21[] = "kLiteRtRuntimeBuiltin";

enum Status : int { kOk = 0, kInvalidArgument = 1, kUnsupported = 5, kNotFound = 6, kFileIO = 500, kInvalidFlatbuffer = 501 };
enum Hardware : int { kCpu = 1, kGpu = 2, kNpu = 4 };
enum LockMode : int { kRead = 0, kWrite = 1 };
enum EnvironmentTag : int { kDispatchLibraryDir = 1, kRuntimeLibraryDir = 22, kAutoRegister = 24, kMinLoggerSeverity = 25 };
enum AnyType : int { kAnyInt = 2, kAnyString = 8 };
constexpr std::int64_t kLogErrors = 3;
constexpr int kPerTensor = 1;  // LiteRtQuantizationTypeId

struct EnvironmentOption {
    int tag;
    struct {
        int type;
        union {
            std::int64_t integer;
            const char* string;
        } value;
    } any;
};

struct Layout {
    std::uint32_t rank : 7;
    std::uint32_t has_strides : 1;
    std::int32_t dimensions[8];
    std::uint32_t strides[8];
};

struct TensorType {
    std::int32_t element_type;  // TfLiteType's numbers
    Layout layout;
};
static_assert(sizeof(TensorType) == 72, "LiteRT asserts this size of LiteRtRankedTensorType");

struct PerTensorQuantization {
    float scale;
    std::int64_t zero_point;
};

struct Functions {
    int (*create_environment)(int count, const EnvironmentOption*, Environment**);
    void (*destroy_environment)(Environment*);
    int (*create_model)(Environment*, const void* data, std::size_t size, ModelFile**);
    void (*destroy_model)(ModelFile*);
    int (*create_options)(CompileOptions**);
    void (*destroy_options)(CompileOptions*);
    int (*set_hardware)(CompileOptions*, int hardware);
    int (*create_opaque)(const char* identifier, void* payload, void (*destroy)(void*), OpaqueOptions**);
    int (*add_opaque)(CompileOptions*, OpaqueOptions*);
    int (*compile)(Environment*, ModelFile*, CompileOptions*, CompiledModel**);
    void (*destroy_compiled)(CompiledModel*);
    int (*is_accelerated)(CompiledModel*, bool*);  // wholly on what is not the CPU; null before 2.3
    int (*output_layouts)(CompiledModel*, std::size_t signature, std::size_t count, Layout*, bool allocate);
    int (*run)(CompiledModel*, std::size_t signature, std::size_t, Buffer**, std::size_t, Buffer**);
    int (*input_requirements)(CompiledModel*, std::size_t signature, std::size_t index, BufferRequirements**);
    int (*output_requirements)(CompiledModel*, std::size_t signature, std::size_t index, BufferRequirements**);
    int (*create_buffer)(Environment*, const TensorType*, BufferRequirements*, Buffer**);
    void (*destroy_buffer)(Buffer*);
    int (*lock)(Buffer*, void** address, int mode);
    int (*unlock)(Buffer*);
    int (*packed_size)(Buffer*, std::size_t*);
    int (*signature)(ModelFile*, std::size_t index, Signature**);
    int (*signature_subgraph)(Signature*, Subgraph**);
    int (*input_count)(Signature*, std::size_t*);
    int (*output_count)(Signature*, std::size_t*);
    int (*input_name)(Signature*, std::size_t, const char**);
    int (*output_name)(Signature*, std::size_t, const char**);
    int (*input_tensor)(Signature*, std::size_t, TensorHandle**);
    int (*output_tensor)(Signature*, std::size_t, TensorHandle**);
    int (*subgraph_input_count)(Subgraph*, std::size_t*);
    int (*subgraph_output_count)(Subgraph*, std::size_t*);
    int (*subgraph_input)(Subgraph*, std::size_t, TensorHandle**);
    int (*subgraph_output)(Subgraph*, std::size_t, TensorHandle**);
    int (*tensor_type)(TensorHandle*, TensorType*);
    int (*quantization_kind)(TensorHandle*, int*);
    int (*per_tensor_quantization)(TensorHandle*, PerTensorQuantization*);
};

}  // namespace runner::litert
