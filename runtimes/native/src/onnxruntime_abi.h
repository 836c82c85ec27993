// The part of ONNX Runtime's C interface that is used here, by place in its table of functions.
//
// The table (struct OrtApi) only ever grows: functions keep their places from the version that brought them on, which ONNX
// Runtime's own source asserts. All of these are there since version 12 (ONNX Runtime 1.12, 2022), and the library is asked
// for a table of that version, so an older one is refused. https://onnxruntime.ai/docs/api/c/struct_ort_api.html
#pragma once

#include <cstddef>
#include <cstdint>

namespace runner::ort {

struct Status;
struct Env;
struct Session;
struct SessionOptions;
struct RunOptions;
struct Value;
struct TypeInfo;
struct TensorInfo;
struct MemoryInfo;
struct Metadata;
struct Allocator;

constexpr std::uint32_t kTableVersion = 12;
struct ApiBase {
    const void* const* (*get_table)(std::uint32_t version);  // null where the library is older
    const char* (*version)();
};
using GetApiBase = const ApiBase* (*)();  // the one exported function, "OrtGetApiBase"

enum ErrorCode { kFail = 1, kInvalidArgument = 2, kNotImplemented = 9, kExecutionProviderFail = 11 };
constexpr int kLogFatal = 4;
constexpr int kSequential = 0;
constexpr int kTensorType = 1;  // ONNX_TYPE_TENSOR
constexpr int kArenaAllocator = 1;
constexpr int kDefaultMemory = 0;

template <std::size_t place, typename Signature>
struct Slot {};

constexpr Slot<1, int(const Status*)> kGetErrorCode;
constexpr Slot<2, const char*(const Status*)> kGetErrorMessage;
constexpr Slot<3, Status*(int severity, const char* id, Env**)> kCreateEnv;
constexpr Slot<7, Status*(const Env*, const char* path, const SessionOptions*, Session**)> kCreateSession;
constexpr Slot<8, Status*(const Env*, const void* data, std::size_t size, const SessionOptions*, Session**)>
    kCreateSessionFromArray;
constexpr Slot<9, Status*(Session*, const RunOptions*, const char* const* input_names, const Value* const* inputs,
                          std::size_t input_count, const char* const* output_names, std::size_t output_count, Value** outputs)>
    kRun;
constexpr Slot<10, Status*(SessionOptions**)> kCreateSessionOptions;
constexpr Slot<13, Status*(SessionOptions*, int mode)> kSetSessionExecutionMode;
constexpr Slot<22, Status*(SessionOptions*, int severity)> kSetSessionLogSeverityLevel;
constexpr Slot<23, Status*(SessionOptions*, int level)> kSetSessionGraphOptimizationLevel;
constexpr Slot<24, Status*(SessionOptions*, int threads)> kSetIntraOpNumThreads;
constexpr Slot<25, Status*(SessionOptions*, int threads)> kSetInterOpNumThreads;
constexpr Slot<30, Status*(const Session*, std::size_t*)> kSessionGetInputCount;
constexpr Slot<31, Status*(const Session*, std::size_t*)> kSessionGetOutputCount;
constexpr Slot<33, Status*(const Session*, std::size_t, TypeInfo**)> kSessionGetInputTypeInfo;
constexpr Slot<34, Status*(const Session*, std::size_t, TypeInfo**)> kSessionGetOutputTypeInfo;
constexpr Slot<36, Status*(const Session*, std::size_t, Allocator*, char**)> kSessionGetInputName;
constexpr Slot<37, Status*(const Session*, std::size_t, Allocator*, char**)> kSessionGetOutputName;
constexpr Slot<49, Status*(const MemoryInfo*, void* data, std::size_t size, const std::int64_t* shape, std::size_t rank,
                           int type, Value**)>
    kCreateTensorWithData;
constexpr Slot<50, Status*(const Value*, int* answer)> kIsTensor;
constexpr Slot<51, Status*(Value*, void**)> kGetTensorMutableData;
constexpr Slot<55, Status*(const TypeInfo*, const TensorInfo**)> kCastTypeInfoToTensorInfo;
constexpr Slot<56, Status*(const TypeInfo*, int* type)> kGetOnnxTypeFromTypeInfo;
constexpr Slot<60, Status*(const TensorInfo*, int* type)> kGetTensorElementType;
constexpr Slot<61, Status*(const TensorInfo*, std::size_t*)> kGetDimensionsCount;
constexpr Slot<62, Status*(const TensorInfo*, std::int64_t*, std::size_t)> kGetDimensions;
constexpr Slot<65, Status*(const Value*, TensorInfo**)> kGetTensorTypeAndShape;
constexpr Slot<69, Status*(int allocator, int memory, MemoryInfo**)> kCreateCpuMemoryInfo;
constexpr Slot<76, Status*(Allocator*, void*)> kAllocatorFree;
constexpr Slot<78, Status*(Allocator**)> kGetAllocatorWithDefaultOptions;
constexpr Slot<92, void(Env*)> kReleaseEnv;
constexpr Slot<93, void(Status*)> kReleaseStatus;
constexpr Slot<94, void(MemoryInfo*)> kReleaseMemoryInfo;
constexpr Slot<95, void(Session*)> kReleaseSession;
constexpr Slot<96, void(Value*)> kReleaseValue;
constexpr Slot<98, void(TypeInfo*)> kReleaseTypeInfo;
constexpr Slot<99, void(TensorInfo*)> kReleaseTensorInfo;
constexpr Slot<100, void(SessionOptions*)> kReleaseSessionOptions;
constexpr Slot<111, Status*(const Session*, Metadata**)> kSessionGetModelMetadata;
constexpr Slot<116, Status*(const Metadata*, Allocator*, const char* key, char** value)> kMetadataLookup;
constexpr Slot<118, void(Metadata*)> kReleaseMetadata;
constexpr Slot<125, Status*(char*** names, int* count)> kGetAvailableProviders;
constexpr Slot<126, Status*(char** names, int count)> kReleaseAvailableProviders;
constexpr Slot<130, Status*(SessionOptions*, const char* key, const char* value)> kAddSessionConfigEntry;
constexpr Slot<216, Status*(SessionOptions*, const char* provider, const char* const* keys, const char* const* values,
                            std::size_t count)>
    kAppendExecutionProvider;

// The table, called by slot: `table(kRun, session, ...)`.
class Table {
public:
    explicit Table(const void* const* places = nullptr) : places_(places) {}

    template <std::size_t place, typename Result, typename... Parameters, typename... Arguments>
    Result operator()(Slot<place, Result(Parameters...)>, Arguments... arguments) const {
        return reinterpret_cast<Result (*)(Parameters...)>(const_cast<void*>(places_[place]))(arguments...);
    }

private:
    const void* const* places_;
};

}  // namespace runner::ort
