#include "model.h"

#include <cstring>

#include "failure.h"

namespace runner {
namespace {

bool ends_with(const std::string& word, const std::string& end) {
    return word.size() >= end.size() && word.compare(word.size() - end.size(), end.size(), end) == 0;
}

// The identifier of a FlatBuffers file stands in its bytes 4 to 8.
bool is_flatbuffer(const std::string& bytes, const char* identifier) {
    return bytes.size() >= 8 && std::memcmp(bytes.data() + 4, identifier, 4) == 0;
}

}  // namespace

std::unique_ptr<Model> load_model(const std::string& path, std::string&& bytes, const Options& options) {
    if (is_flatbuffer(bytes, "TFL3")) {
        const std::vector<std::string> names{"libLiteRt.so", "libtensorflowlite_c.so", "libtensorflowlite_jni.so"};
        Library library = options.library.empty() ? Library::find(names, "LiteRT or TensorFlow Lite") : Library(options.library);
        if (library.has("LiteRtCreateEnvironment")) return load_litert(std::move(library), path, std::move(bytes), options);
        if (library.has("TfLiteInterpreterCreate")) return load_tflite(std::move(library), path, std::move(bytes), options);
        throw Failure(kNotSupported, library.path() + " exports neither LiteRT's nor TensorFlow Lite's C interface.");
    }
    if (ends_with(path, ".tflite"))
        throw Failure(kIntegrity, path + " is not a TFLite model: bytes 4 to 8 are not 'TFL3'. Export again.");
    if (is_flatbuffer(bytes, "ORTM") || ends_with(path, ".onnx") || ends_with(path, ".ort"))
        return load_onnxruntime(path, std::move(bytes), options);
    throw Failure(kIntegrity, path + " is no .tflite, .onnx or .ort file.");
}

}  // namespace runner
