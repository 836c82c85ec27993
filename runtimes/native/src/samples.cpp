#include "samples.h"

#include "failure.h"

namespace runner {

Samples::Samples(const Given& given, const Model& model, bool is_stacked)
    : model_(&model), is_stacked_(is_stacked && !given.empty()) {
    std::string known;
    for (const auto& input : model.inputs()) known += (known.empty() ? "" : ", ") + input.name;
    for (const auto& one : given) {
        bool is_known = false;
        for (const auto& input : model.inputs()) is_known = is_known || input.name == one.first;
        if (!is_known) throw Failure(kUsage, "the model has no input '" + one.first + "'; it has " + known + ".");
    }
    if (!given.empty()) open(given);
    if (!is_stacked_) return;
    for (const auto& file : files_)
        if (file.shape().empty() || file.shape()[0] != files_[0].shape()[0] || file.shape()[0] == 0)
            throw Failure(kUsage, "--stacked: every input needs the same number of samples, at least one, in front.");
    count_ = static_cast<std::size_t>(files_[0].shape()[0]);
}

void Samples::open(const Given& given) {
    for (const auto& input : model_->inputs()) {
        const std::string* file = nullptr;
        for (const auto& one : given)
            if (one.first == input.name) file = &one.second;
        if (file == nullptr)
            throw Failure(kUsage, "input '" + input.name + "' is missing. Give every input, or none for zeros.");
        files_.emplace_back(*file);
    }
}

std::vector<Tensor> Samples::read(std::size_t index) const {
    std::vector<Tensor> values;
    const auto& inputs = model_->inputs();
    for (std::size_t place = 0; place < inputs.size(); ++place) {
        if (files_.empty())
            values.push_back(zeros(inputs[place].dtype, inputs[place].shape));
        else
            values.push_back(is_stacked_ ? files_[place].read_row(index) : files_[place].read());
        check_fits(values.back(), inputs[place]);
    }
    return values;
}

void OutputSink::add(const Tensor& tensor, std::size_t count, bool is_stacked) {
    if (!has_begun_) {
        has_begun_ = true;
        shape_ = sample_shape_ = tensor.shape;
        if (is_stacked) shape_.insert(shape_.begin(), static_cast<std::int64_t>(count));
        if (!file_.empty()) {
            writer_ = std::make_unique<FileWriter>(file_);
            const std::string header = npy_header(tensor.dtype, shape_);
            writer_->add(header.data(), header.size());
        }
    } else if (tensor.shape != sample_shape_) {
        throw Failure(kNotSupported, "output '" + name_ + "' changes its shape from sample to sample; run them one by one.");
    }
    digest_.add(tensor.bytes.data(), tensor.bytes.size());
    if (writer_) writer_->add(tensor.bytes.data(), tensor.bytes.size());
}

OutputFacts OutputSink::finish() {
    if (writer_) writer_->finish();
    return {digest_.hex(), shape_, file_};
}

}  // namespace runner
