#include "tflite_functions.h"

#include <type_traits>

namespace runner::tflite {

Functions find_functions(const Library& library) {
    Functions f{};
    const auto find = [&](auto* function, const char* name) {
        *function = library.symbol<std::remove_pointer_t<decltype(function)>>(name);
    };
    const auto find_newer = [&](auto* function, const char* name) {
        *function = library.symbol_or_null<std::remove_pointer_t<decltype(function)>>(name);
    };
    find(&f.version, "TfLiteVersion");
    find(&f.create_model, "TfLiteModelCreate");
    find(&f.delete_model, "TfLiteModelDelete");
    find(&f.create_options, "TfLiteInterpreterOptionsCreate");
    find(&f.delete_options, "TfLiteInterpreterOptionsDelete");
    find(&f.set_threads, "TfLiteInterpreterOptionsSetNumThreads");
    find(&f.set_error_reporter, "TfLiteInterpreterOptionsSetErrorReporter");
    find(&f.add_delegate, "TfLiteInterpreterOptionsAddDelegate");
    find(&f.create, "TfLiteInterpreterCreate");
    find(&f.destroy, "TfLiteInterpreterDelete");
    find(&f.allocate, "TfLiteInterpreterAllocateTensors");
    find(&f.invoke, "TfLiteInterpreterInvoke");
    find(&f.input_count, "TfLiteInterpreterGetInputTensorCount");
    find(&f.output_count, "TfLiteInterpreterGetOutputTensorCount");
    find(&f.input, "TfLiteInterpreterGetInputTensor");
    find(&f.output, "TfLiteInterpreterGetOutputTensor");
    find(&f.type, "TfLiteTensorType");
    find(&f.rank, "TfLiteTensorNumDims");
    find(&f.size, "TfLiteTensorDim");
    find(&f.byte_size, "TfLiteTensorByteSize");
    find(&f.name, "TfLiteTensorName");
    find(&f.quantization, "TfLiteTensorQuantizationParams");
    find(&f.write, "TfLiteTensorCopyFromBuffer");
    find(&f.read, "TfLiteTensorCopyToBuffer");
    find_newer(&f.signature_count, "TfLiteInterpreterGetSignatureCount");
    find_newer(&f.signature_key, "TfLiteInterpreterGetSignatureKey");
    find_newer(&f.signature_runner, "TfLiteInterpreterGetSignatureRunner");
    find_newer(&f.delete_runner, "TfLiteSignatureRunnerDelete");
    find_newer(&f.runner_input_count, "TfLiteSignatureRunnerGetInputCount");
    find_newer(&f.runner_input_name, "TfLiteSignatureRunnerGetInputName");
    find_newer(&f.runner_input, "TfLiteSignatureRunnerGetInputTensor");
    find_newer(&f.runner_output_count, "TfLiteSignatureRunnerGetOutputCount");
    find_newer(&f.runner_output_name, "TfLiteSignatureRunnerGetOutputName");
    find_newer(&f.runner_output, "TfLiteSignatureRunnerGetOutputTensor");
    return f;
}

}  // namespace runner::tflite
