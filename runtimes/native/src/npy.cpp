#include "npy.h"

#include <algorithm>
#include <cstring>

#include "failure.h"

namespace runner {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr std::size_t kMagicSize = 6;
constexpr std::size_t kHeaderLimit = 65536;  // NumPy's own limit is 10,000 characters
constexpr std::size_t kRankLimit = 16;

// Reads the one form of dictionary NumPy writes: {'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }
class HeaderReader {
public:
    HeaderReader(const std::string& header, const std::string& source) : header_(header), source_(source) {}

    void read(Tensor* found) {
        bool has_type = false, has_order = false, has_shape = false;
        expect('{');
        while (!accept('}')) {
            const std::string key = string();
            expect(':');
            if (key == "descr" && !has_type) {
                has_type = true;
                read_type(found);
            } else if (key == "fortran_order" && !has_order) {
                has_order = true;
                if (word() != "False") fail("it is in Fortran order; save numpy.ascontiguousarray(array)");
            } else if (key == "shape" && !has_shape) {
                has_shape = true;
                read_shape(&found->shape);
            } else {
                fail("its header has the key '" + key.substr(0, 40) + "' where descr, fortran_order and shape stand once");
            }
            if (!accept(',')) {
                expect('}');
                break;
            }
        }
        skip_spaces();
        if (place_ != header_.size() || !has_type || !has_order || !has_shape) fail("its header is damaged");
    }

private:
    void read_type(Tensor* found) {
        const std::string description = string();
        const auto dtype = dtype_of_description(description);
        if (!dtype)
            fail("its elements are '" + description.substr(0, 40) +
                 "'; taken are |b1 |i1 |u1 <i2 <i4 <i8 <f2 <f4 <f8 (little-endian, no objects)");
        found->dtype = *dtype;
    }

    void read_shape(Shape* shape) {
        shape->clear();
        expect('(');
        while (!accept(')')) {
            if (shape->size() == kRankLimit) fail("it has more than 16 axes");
            shape->push_back(number());
            if (!accept(',')) {
                if (shape->size() == 1) fail("its shape is no tuple");
                expect(')');
                break;
            }
        }
    }

    std::int64_t number() {
        skip_spaces();
        std::int64_t value = 0;
        const std::size_t start = place_;
        while (place_ < header_.size() && header_[place_] >= '0' && header_[place_] <= '9') {
            if (value > (std::int64_t{1} << 48)) fail("its shape has a size that is too large");
            value = value * 10 + (header_[place_++] - '0');
        }
        if (place_ == start) fail("its shape has a size that is no whole number");
        return value;
    }

    std::string string() {
        skip_spaces();
        if (place_ >= header_.size() || (header_[place_] != '\'' && header_[place_] != '"')) fail("its header is damaged");
        const char quote = header_[place_++];
        const std::size_t end = header_.find(quote, place_);
        if (end == std::string::npos) fail("its header is damaged");
        const std::string found = header_.substr(place_, end - place_);
        place_ = end + 1;
        return found;
    }

    std::string word() {
        skip_spaces();
        const std::size_t start = place_;
        while (place_ < header_.size() && ((header_[place_] | 0x20) >= 'a' && (header_[place_] | 0x20) <= 'z')) ++place_;
        return header_.substr(start, place_ - start);
    }

    bool accept(char wanted) {
        skip_spaces();
        if (place_ >= header_.size() || header_[place_] != wanted) return false;
        ++place_;
        return true;
    }

    void expect(char wanted) {
        if (!accept(wanted)) fail("its header is damaged");
    }

    void skip_spaces() {
        while (place_ < header_.size() && (header_[place_] == ' ' || header_[place_] == '\n')) ++place_;
    }

    [[noreturn]] void fail(const std::string& what) { throw Failure(kUsage, source_ + " cannot be read as .npy: " + what); }

    const std::string& header_;
    const std::string& source_;
    std::size_t place_ = 0;
};

}  // namespace

std::size_t parse_npy_header(const std::string& bytes, const std::string& source, Tensor* found) {
    const auto byte = [&](std::size_t place) { return static_cast<std::size_t>(static_cast<unsigned char>(bytes[place])); };
    if (bytes.size() < kMagicSize + 4 || std::memcmp(bytes.data(), kMagic, kMagicSize) != 0)
        throw Failure(kUsage, source + " is not a .npy file: it does not begin with \\x93NUMPY. Write it with numpy.save.");
    const std::size_t version = byte(kMagicSize);
    const std::size_t width = version == 1 ? 2 : 4;
    const std::size_t start = kMagicSize + 2 + width;
    if (version < 1 || version > 3 || bytes.size() < start)
        throw Failure(kUsage, source + " has version " + std::to_string(version) + " of the .npy format, or is cut short.");
    std::size_t length = 0;
    for (std::size_t index = 0; index < width; ++index) length |= byte(kMagicSize + 2 + index) << (8 * index);
    if (length > kHeaderLimit || bytes.size() - start < length)
        throw Failure(kUsage, source + " has a header of " + std::to_string(length) + " bytes, more than the file or 65,536.");
    HeaderReader(bytes.substr(start, length), source).read(found);
    return start + length;
}

NpyReader::NpyReader(const std::string& path) : file_(path, kUsage) {
    std::string first(std::min(file_.size(), kHeaderLimit + kMagicSize + 6), '\0');
    file_.read(0, first.data(), first.size());
    offset_ = parse_npy_header(first, path, &array_);
    std::size_t size = 0;
    try {
        size = element_count(array_.shape) * facts(array_.dtype).size_bytes;
    } catch (const Failure& failure) {
        throw Failure(kUsage, path + " cannot be read as .npy: " + failure.what() + ".");
    }
    if (file_.size() - offset_ != size)
        throw Failure(kUsage, path + " holds " + std::to_string(file_.size() - offset_) + " bytes of values; its header says " +
                                  facts(array_.dtype).name + " " + text(array_.shape) + ", which are " + std::to_string(size) + ".");
}

Tensor NpyReader::read() const {
    Tensor found = array_;
    found.bytes.resize(element_count(found.shape) * facts(found.dtype).size_bytes);
    file_.read(offset_, found.bytes.data(), found.bytes.size());
    return found;
}

Tensor NpyReader::read_row(std::size_t row) const {
    Tensor found{array_.dtype, Shape(array_.shape.begin() + 1, array_.shape.end()), {}};
    found.bytes.resize(element_count(found.shape) * facts(found.dtype).size_bytes);
    file_.read(offset_ + row * found.bytes.size(), found.bytes.data(), found.bytes.size());
    return found;
}

std::string npy_header(DType dtype, const Shape& shape) {
    std::string sizes;
    for (const auto size : shape) sizes += std::to_string(size) + (shape.size() == 1 ? "," : ", ");
    if (shape.size() > 1) sizes.resize(sizes.size() - 2);
    std::string header =
        std::string("{'descr': '") + facts(dtype).description + "', 'fortran_order': False, 'shape': (" + sizes + "), }";
    const std::size_t prefix = kMagicSize + 4;
    header.append(63 - (prefix + header.size()) % 64, ' ');  // the values begin at a multiple of 64
    header += '\n';
    std::string bytes(kMagic, kMagicSize);
    bytes += {'\x01', '\x00', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
    return bytes + header;
}

}  // namespace runner
