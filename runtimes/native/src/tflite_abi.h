// The part of TensorFlow Lite's C interface that is used here (libtensorflowlite_c.so, or an app's libtensorflowlite_jni.so).
// It is stable across releases. https://www.tensorflow.org/lite/api_docs/c
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>

namespace runner::tflite {

struct ModelFile;
struct InterpreterOptions;
struct Interpreter;
struct SignatureRunner;
struct TensorHandle;
struct Delegate;

struct QuantizationParams {
    float scale;
    std::int32_t zero_point;
};

using ErrorReporter = void (*)(void* user, const char* format, va_list arguments);

struct Functions {
    const char* (*version)();
    ModelFile* (*create_model)(const void* data, std::size_t size);
    void (*delete_model)(ModelFile*);
    InterpreterOptions* (*create_options)();
    void (*delete_options)(InterpreterOptions*);
    void (*set_threads)(InterpreterOptions*, std::int32_t);
    void (*set_error_reporter)(InterpreterOptions*, ErrorReporter, void* user);
    void (*add_delegate)(InterpreterOptions*, Delegate*);
    Interpreter* (*create)(const ModelFile*, const InterpreterOptions*);
    void (*destroy)(Interpreter*);
    int (*allocate)(Interpreter*);
    int (*invoke)(Interpreter*);
    std::int32_t (*input_count)(const Interpreter*);
    std::int32_t (*output_count)(const Interpreter*);
    TensorHandle* (*input)(const Interpreter*, std::int32_t);
    const TensorHandle* (*output)(const Interpreter*, std::int32_t);
    int (*type)(const TensorHandle*);
    std::int32_t (*rank)(const TensorHandle*);
    std::int32_t (*size)(const TensorHandle*, std::int32_t axis);
    std::size_t (*byte_size)(const TensorHandle*);
    const char* (*name)(const TensorHandle*);
    QuantizationParams (*quantization)(const TensorHandle*);
    int (*write)(TensorHandle*, const void*, std::size_t);
    int (*read)(const TensorHandle*, void*, std::size_t);

    // Signatures came later than the rest; null where the library has none.
    std::int32_t (*signature_count)(const Interpreter*);
    const char* (*signature_key)(const Interpreter*, std::int32_t);
    SignatureRunner* (*signature_runner)(const Interpreter*, const char* key);
    void (*delete_runner)(SignatureRunner*);
    std::size_t (*runner_input_count)(const SignatureRunner*);
    const char* (*runner_input_name)(const SignatureRunner*, std::int32_t);
    TensorHandle* (*runner_input)(SignatureRunner*, const char* name);
    std::size_t (*runner_output_count)(const SignatureRunner*);
    const char* (*runner_output_name)(const SignatureRunner*, std::int32_t);
    const TensorHandle* (*runner_output)(const SignatureRunner*, const char* name);
};

// A delegate in a library of its own (https://www.tensorflow.org/lite/performance/implementing_delegate).
using CreateDelegate = Delegate* (*)(const char* const* keys, const char* const* values, std::size_t count,
                                     void (*report_error)(const char*));
using DestroyDelegate = void (*)(Delegate*);

}  // namespace runner::tflite
