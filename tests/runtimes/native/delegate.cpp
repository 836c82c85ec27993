// A delegate for tests, in a library of its own: it takes the model, counts its operators into a file, and leaves them all to
// the interpreter. It finds the runtime's functions in the library that its option "runtime" names.

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>

namespace {

struct Builder {  // TfLiteOpaqueDelegateBuilder
    void* data;
    int (*prepare)(void* context, void* delegate, void* data);
    void *copy_from, *copy_to, *free;
    long long flags;
};

std::string count_path;
void* runtime = nullptr;

int prepare(void* context, void*, void*) {
    struct IntArray {
        int size;
    };
    IntArray* plan = nullptr;
    using GetPlan = int (*)(void*, IntArray**);
    reinterpret_cast<GetPlan>(dlsym(runtime, "TfLiteOpaqueContextGetExecutionPlan"))(context, &plan);
    if (std::FILE* file = std::fopen(count_path.c_str(), "w")) {
        std::fprintf(file, "%d", plan == nullptr ? -1 : plan->size);
        std::fclose(file);
    }
    return 0;
}

}  // namespace

extern "C" void* tflite_plugin_create_delegate(const char* const* keys, const char* const* values, std::size_t count,
                                               void (*report_error)(const char*)) {
    for (std::size_t index = 0; index < count; ++index) {
        if (std::strcmp(keys[index], "runtime") == 0) runtime = dlopen(values[index], RTLD_NOW | RTLD_NOLOAD);
        if (std::strcmp(keys[index], "count") == 0) count_path = values[index];
    }
    if (runtime == nullptr) {
        report_error("the accelerator is not there");
        return nullptr;
    }
    const Builder builder{nullptr, prepare, nullptr, nullptr, nullptr, 0};
    return reinterpret_cast<void* (*)(const Builder*)>(dlsym(runtime, "TfLiteOpaqueDelegateCreate"))(&builder);
}

extern "C" void tflite_plugin_destroy_delegate(void* delegate) {
    if (delegate != nullptr) reinterpret_cast<void (*)(void*)>(dlsym(runtime, "TfLiteOpaqueDelegateDelete"))(delegate);
}
