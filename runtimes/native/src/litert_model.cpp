// .tflite files through LiteRT's compiled model: the same XNNPACK kernels as the Python interpreter's.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "chatter.h"
#include "failure.h"
#include "files.h"
#include "litert_functions.h"
#include "model.h"

namespace runner {
namespace {

constexpr std::size_t kSignature = 0;

struct Provider {
    int hardware;
    int kernel_mode;  // LiteRtCpuKernelMode
};
// TFLite's own kernels ("builtin", "reference") take the place of XNNPACK; on GPU and NPU it computes what they cannot.
const std::map<std::string, Provider> kProviders{{"xnnpack", {litert::kCpu, 0}},
                                                 {"reference", {litert::kCpu, 1}},
                                                 {"builtin", {litert::kCpu, 2}},
                                                 {"gpu", {litert::kCpu | litert::kGpu, 0}},
                                                 {"npu", {litert::kCpu | litert::kNpu, 0}}};

// A tensor at the edge, its place in the signature (which is the place of its buffer), and its type as LiteRT has it.
struct Edge {
    TensorInfo info;
    std::size_t place;
    std::size_t order;  // place in the graph
    litert::TensorType type;
};

class LiteRtModel final : public Model {
public:
    LiteRtModel(Library&& library, const std::string& path, std::string&& bytes, const Options& options)
        : library_(std::move(library)), path_(path), call_(litert::find_functions(library_)), bytes_(std::move(bytes)) {
        runtime_.name = "litert";
        runtime_.library = library_.path();
        try {
            load(options);
        } catch (...) {
            release();
            throw;
        }
    }

    ~LiteRtModel() override { release(); }
    LiteRtModel(const LiteRtModel&) = delete;
    LiteRtModel& operator=(const LiteRtModel&) = delete;

    void set_inputs(const std::vector<Tensor>& values) override {
        for (std::size_t index = 0; index < input_edges_.size(); ++index) {
            litert::Buffer* buffer = input_buffers_[input_edges_[index].place];
            void* data = nullptr;
            check(call_.lock(buffer, &data, litert::kWrite), "its input buffer cannot be written");
            if (!values[index].bytes.empty()) std::memcpy(data, values[index].bytes.data(), values[index].bytes.size());
            check(call_.unlock(buffer), "its input buffer cannot be written");
        }
    }

    void invoke() override {
        const int status = call_.run(compiled_, kSignature, input_buffers_.size(), input_buffers_.data(),
                                     output_buffers_.size(), output_buffers_.data());
        if (status != litert::kOk)
            throw Failure(kUsage, "LiteRT could not run " + path_ + " on these inputs: status " + std::to_string(status) + ".");
    }

    std::vector<Tensor> read_outputs() override {
        std::vector<Tensor> found;
        for (const auto& edge : output_edges_) {
            Tensor tensor = zeros(edge.info.dtype, edge.info.shape);
            litert::Buffer* buffer = output_buffers_[edge.place];
            std::size_t size = 0;
            void* data = nullptr;
            check(call_.packed_size(buffer, &size), "its output buffer has no size");
            if (size != tensor.bytes.size())
                throw Failure(kNotSupported, path_ + ": output '" + edge.info.name + "' has " + std::to_string(size) +
                                                 " bytes, its shape " + text(edge.info.shape) + " says otherwise.");
            check(call_.lock(buffer, &data, litert::kRead), "its output buffer cannot be read");
            if (size > 0) std::memcpy(tensor.bytes.data(), data, size);
            check(call_.unlock(buffer), "its output buffer cannot be read");
            found.push_back(std::move(tensor));
        }
        return found;
    }

private:
    void load(const Options& options) {
        const std::string name = options.provider.empty() ? "xnnpack" : options.provider;
        const auto provider = kProviders.find(name);
        if (provider == kProviders.end())
            throw Failure(is_file(name) ? kNotSupported : kUsage,
                          "LiteRT's compiled model has no delegate '" + name +
                              "'; it has xnnpack, builtin, reference, gpu, npu. A delegate in a file of its own needs TFLite's C"
                              " library: --library libtensorflowlite_c.so.");
        runtime_.provider = name;
        Chatter chatter;
        create_environment(provider->second.hardware);
        int status = call_.create_model(environment_, bytes_.data(), bytes_.size(), &file_);
        if (status != litert::kOk)
            throw Failure(kIntegrity, path_ + " is not a model LiteRT can read: status " + std::to_string(status) + chatter.words());
        compile(provider->second, options, &chatter);
        if (provider->second.hardware != litert::kCpu) check_accelerated(options);
        read_edges();
        allocate(chatter);
        make_buffers();
    }

    void create_environment(int hardware) {
        const std::string folder = folder_of(runtime_.library);
        litert::EnvironmentOption options[4]{};
        options[0].tag = litert::kRuntimeLibraryDir;
        options[1].tag = litert::kDispatchLibraryDir;
        for (int index = 0; index < 2; ++index) {
            options[index].any.type = litert::kAnyString;
            options[index].any.value.string = folder.c_str();
        }
        options[2].tag = litert::kMinLoggerSeverity;
        options[2].any.value.integer = litert::kLogErrors;
        options[3].tag = litert::kAutoRegister;
        options[3].any.value.integer = hardware;  // no search for libraries of a GPU or NPU nobody asked for
        for (int index = 2; index < 4; ++index) options[index].any.type = litert::kAnyInt;
        check(call_.create_environment(4, options, &environment_), "no environment could be made");
    }

    void compile(const Provider& provider, const Options& options, Chatter* chatter) {
        check(call_.create_options(&options_), "no options could be made");
        check(call_.set_hardware(options_, provider.hardware), "the hardware was refused");
        const std::string settings = "num_threads = " + std::to_string(options.threads) +
                                     "\nkernel_mode = " + std::to_string(provider.kernel_mode) + "\n";
        litert::OpaqueOptions* opaque = nullptr;
        char* payload = strdup(settings.c_str());
        check(call_.create_opaque("xnnpack", payload, std::free, &opaque), "the options of the CPU were refused");
        check(call_.add_opaque(options_, opaque), "the options of the CPU were refused");
        runtime_.options["num_threads"] = std::to_string(options.threads);
        runtime_.options["kernel_mode"] = std::to_string(provider.kernel_mode);
        const int status = call_.compile(environment_, file_, options_, &compiled_);
        if (status == litert::kOk) return;
        if (provider.hardware != litert::kCpu)
            throw Failure(kNotSupported, path_ + ": LiteRT cannot use '" + runtime_.provider + "' here" + chatter->words());
        fail_to_load(status, *chatter);
    }

    // Kernels are prepared and weights packed now, as the Python interpreter does, and not within the first inference.
    void allocate(const Chatter& chatter) {
        std::vector<litert::Layout> layouts(output_edges_.size());
        const int status = call_.output_layouts(compiled_, kSignature, layouts.size(), layouts.data(), true);
        if (status != litert::kOk) fail_to_load(status, chatter);
    }

    [[noreturn]] void fail_to_load(int status, const Chatter& chatter) const {
        const std::string words = chatter.words();
        if (words.find("custom op") != words.npos || words.find("Didn't find op") != words.npos)
            throw Failure(kNotSupported, path_ + ": LiteRT has no kernel for an operator of this model" + words);
        throw Failure(kIntegrity, path_ + " is not a model LiteRT can load: status " + std::to_string(status) + words);
    }

    // What was asked for is not silently computed elsewhere: LiteRT lets the CPU take whatever is left, even everything.
    void check_accelerated(const Options& options) {
        bool is_whole = false;
        const bool is_known = call_.is_accelerated != nullptr && call_.is_accelerated(compiled_, &is_whole) == litert::kOk;
        runtime_.options["wholly_on_" + runtime_.provider] = is_whole ? "yes" : is_known ? "no" : "unknown";
        const std::pair<std::string, std::string> allowed{"fallback", "on"};
        const auto& given = options.provider_options;
        if (!is_whole && std::find(given.begin(), given.end(), allowed) == given.end())
            throw Failure(kNotSupported, path_ + ": '" + runtime_.provider +
                                             "' does not compute the whole model here, and LiteRT would let the CPU do the rest."
                                             " Accept that with --provider-option fallback=on, or use xnnpack.");
    }

    // Names and types by signature, in the order of the graph, as the Python interpreter lists them.
    void read_edges() {
        litert::Signature* signature = nullptr;
        litert::Subgraph* graph = nullptr;
        check(call_.signature(file_, kSignature, &signature), "it has no signature");
        check(call_.signature_subgraph(signature, &graph), "its signature has no graph");
        input_edges_ = edges(signature, call_.input_count, call_.input_name, call_.input_tensor,
                             tensors(graph, call_.subgraph_input_count, call_.subgraph_input));
        output_edges_ = edges(signature, call_.output_count, call_.output_name, call_.output_tensor,
                              tensors(graph, call_.subgraph_output_count, call_.subgraph_output));
        for (const auto& edge : input_edges_) inputs_.push_back(edge.info);
        for (const auto& edge : output_edges_) outputs_.push_back(edge.info);
    }

    template <typename Count, typename Get>
    std::vector<litert::TensorHandle*> tensors(litert::Subgraph* graph, Count count, Get get) {
        std::size_t size = 0;
        check(count(graph, &size), "its graph has no edges");
        std::vector<litert::TensorHandle*> found(size);
        for (std::size_t index = 0; index < size; ++index) check(get(graph, index, &found[index]), "its graph has no such edge");
        return found;
    }

    template <typename Count, typename Name, typename Get>
    std::vector<Edge> edges(litert::Signature* signature, Count count, Name name, Get get,
                            const std::vector<litert::TensorHandle*>& order) {
        std::size_t size = 0;
        check(count(signature, &size), "its signature has no edges");
        std::vector<Edge> found;
        for (std::size_t place = 0; place < size; ++place) {
            const char* words = nullptr;
            litert::TensorHandle* tensor = nullptr;
            check(name(signature, place, &words), "an edge has no name");
            check(get(signature, place, &tensor), "an edge has no tensor");
            Edge edge{{}, place, 0, {}};
            edge.info.name = words;
            edge.order = static_cast<std::size_t>(std::find(order.begin(), order.end(), tensor) - order.begin());
            describe(tensor, &edge);
            found.push_back(edge);
        }
        std::stable_sort(found.begin(), found.end(), [](const Edge& a, const Edge& b) { return a.order < b.order; });
        return found;
    }

    void describe(litert::TensorHandle* tensor, Edge* edge) {
        check(call_.tensor_type(tensor, &edge->type), "a tensor at its edge has no fixed rank");
        const auto dtype = dtype_of_tflite(edge->type.element_type);
        if (!dtype || edge->type.layout.rank > 8)
            throw Failure(kNotSupported, path_ + ": '" + edge->info.name + "' has TFLite's element type " +
                                             std::to_string(edge->type.element_type) + ", which this program does not take.");
        edge->info.dtype = *dtype;
        for (std::uint32_t axis = 0; axis < edge->type.layout.rank; ++axis) {
            auto& size = edge->type.layout.dimensions[axis];
            if (size < 0) size = 1;  // the interpreter's own default for an open axis
            edge->info.shape.push_back(size);
        }
        int kind = 0;
        litert::PerTensorQuantization grid{};
        check(call_.quantization_kind(tensor, &kind), "a tensor at its edge cannot be read");
        if (kind == litert::kPerTensor && call_.per_tensor_quantization(tensor, &grid) == litert::kOk)
            edge->info.grid = Grid{grid.scale, grid.zero_point};
    }

    void make_buffers() {
        make_buffers(input_edges_, call_.input_requirements, &input_buffers_);
        make_buffers(output_edges_, call_.output_requirements, &output_buffers_);
    }

    template <typename Requirements>
    void make_buffers(const std::vector<Edge>& edges, Requirements requirements, std::vector<litert::Buffer*>* buffers) {
        buffers->assign(edges.size(), nullptr);
        for (const auto& edge : edges) {
            litert::BufferRequirements* needed = nullptr;
            check(requirements(compiled_, kSignature, edge.place, &needed), "an edge has no buffer requirements");
            check(call_.create_buffer(environment_, &edge.type, needed, &(*buffers)[edge.place]), "no buffer could be made");
        }
    }

    void check(int status, const char* what) const {
        if (status != litert::kOk)
            throw Failure(kNotSupported, path_ + ": LiteRT: " + what + " (status " + std::to_string(status) + ").");
    }

    void release() {
        for (auto* buffer : input_buffers_)
            if (buffer != nullptr) call_.destroy_buffer(buffer);
        for (auto* buffer : output_buffers_)
            if (buffer != nullptr) call_.destroy_buffer(buffer);
        if (compiled_ != nullptr) call_.destroy_compiled(compiled_);
        if (options_ != nullptr) call_.destroy_options(options_);
        if (file_ != nullptr) call_.destroy_model(file_);
        if (environment_ != nullptr) call_.destroy_environment(environment_);
    }

    Library library_;
    std::string path_;
    litert::Functions call_;
    std::string bytes_;  // the library reads the weights where they lie
    litert::Environment* environment_ = nullptr;
    litert::ModelFile* file_ = nullptr;
    litert::CompileOptions* options_ = nullptr;
    litert::CompiledModel* compiled_ = nullptr;
    std::vector<Edge> input_edges_;
    std::vector<Edge> output_edges_;
    std::vector<litert::Buffer*> input_buffers_;
    std::vector<litert::Buffer*> output_buffers_;
};

}  // namespace

std::unique_ptr<Model> load_litert(Library&& library, const std::string& path, std::string&& bytes, const Options& options) {
    return std::make_unique<LiteRtModel>(std::move(library), path, std::move(bytes), options);
}

}  // namespace runner
