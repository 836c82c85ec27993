#include "litert_functions.h"

#include <type_traits>

#include "failure.h"

namespace runner::litert {

Functions find_functions(const Library& library) {
    if (!library.has(kNewerThan21))
        throw Failure(kNotSupported, library.path() + " is older than LiteRT 2.2, whose functions take other arguments."
                                                      " Use libLiteRt.so of ai-edge-litert 2.2 or newer.");
    Functions f{};
    const auto find = [&](auto* function, const char* name) {
        *function = library.symbol<std::remove_pointer_t<decltype(function)>>(name);
    };
    find(&f.create_environment, "LiteRtCreateEnvironment");
    find(&f.destroy_environment, "LiteRtDestroyEnvironment");
    find(&f.create_model, "LiteRtCreateModelFromBuffer");
    find(&f.destroy_model, "LiteRtDestroyModel");
    find(&f.create_options, "LiteRtCreateOptions");
    find(&f.destroy_options, "LiteRtDestroyOptions");
    find(&f.set_hardware, "LiteRtSetOptionsHardwareAccelerators");
    find(&f.create_opaque, "LiteRtCreateOpaqueOptions");
    find(&f.add_opaque, "LiteRtAddOpaqueOptions");
    find(&f.compile, "LiteRtCreateCompiledModel");
    find(&f.destroy_compiled, "LiteRtDestroyCompiledModel");
    f.is_accelerated =
        library.symbol_or_null<decltype(f.is_accelerated)>("LiteRtCompiledModelIsNonCpuFullyAccelerated");
    find(&f.output_layouts, "LiteRtGetCompiledModelOutputTensorLayouts");
    find(&f.run, "LiteRtRunCompiledModel");
    find(&f.input_requirements, "LiteRtGetCompiledModelInputBufferRequirements");
    find(&f.output_requirements, "LiteRtGetCompiledModelOutputBufferRequirements");
    find(&f.create_buffer, "LiteRtCreateManagedTensorBufferFromRequirements");
    find(&f.destroy_buffer, "LiteRtDestroyTensorBuffer");
    find(&f.lock, "LiteRtLockTensorBuffer");
    find(&f.unlock, "LiteRtUnlockTensorBuffer");
    find(&f.packed_size, "LiteRtGetTensorBufferPackedSize");
    find(&f.signature, "LiteRtGetModelSignature");
    find(&f.signature_subgraph, "LiteRtGetSignatureSubgraph");
    find(&f.input_count, "LiteRtGetNumSignatureInputs");
    find(&f.output_count, "LiteRtGetNumSignatureOutputs");
    find(&f.input_name, "LiteRtGetSignatureInputName");
    find(&f.output_name, "LiteRtGetSignatureOutputName");
    find(&f.input_tensor, "LiteRtGetSignatureInputTensorByIndex");
    find(&f.output_tensor, "LiteRtGetSignatureOutputTensorByIndex");
    find(&f.subgraph_input_count, "LiteRtGetNumSubgraphInputs");
    find(&f.subgraph_output_count, "LiteRtGetNumSubgraphOutputs");
    find(&f.subgraph_input, "LiteRtGetSubgraphInput");
    find(&f.subgraph_output, "LiteRtGetSubgraphOutput");
    find(&f.tensor_type, "LiteRtGetRankedTensorType");
    find(&f.quantization_kind, "LiteRtGetQuantizationTypeId");
    find(&f.per_tensor_quantization, "LiteRtGetPerTensorQuantization");
    return f;
}

}  // namespace runner::litert
