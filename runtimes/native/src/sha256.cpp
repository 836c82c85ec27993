#include "sha256.h"

#include <algorithm>
#include <cstring>

namespace runner {
namespace {

constexpr std::array<std::uint32_t, 64> kRound{
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotated(std::uint32_t value, int count) { return (value >> count) | (value << (32 - count)); }

void digest_block(const std::uint8_t* block, std::array<std::uint32_t, 8>* state) {
    std::array<std::uint32_t, 64> words{};
    for (int t = 0; t < 16; ++t)
        words[t] = std::uint32_t{block[4 * t]} << 24 | std::uint32_t{block[4 * t + 1]} << 16 |
                   std::uint32_t{block[4 * t + 2]} << 8 | std::uint32_t{block[4 * t + 3]};
    for (int t = 16; t < 64; ++t) {
        const std::uint32_t s0 = rotated(words[t - 15], 7) ^ rotated(words[t - 15], 18) ^ (words[t - 15] >> 3);
        const std::uint32_t s1 = rotated(words[t - 2], 17) ^ rotated(words[t - 2], 19) ^ (words[t - 2] >> 10);
        words[t] = words[t - 16] + s0 + words[t - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = *state;
    for (int t = 0; t < 64; ++t) {
        const std::uint32_t s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
        const std::uint32_t first = h + s1 + ((e & f) ^ (~e & g)) + kRound[t] + words[t];
        const std::uint32_t s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
        const std::uint32_t second = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
    }
    const std::array<std::uint32_t, 8> mixed{a, b, c, d, e, f, g, h};
    for (std::size_t index = 0; index < 8; ++index) (*state)[index] += mixed[index];
}

}  // namespace

void Sha256::add(const void* data, std::size_t size) {
    if (size == 0) return;
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    std::size_t have = size_ % 64;
    size_ += size;
    if (have > 0) {
        const std::size_t count = std::min(size, 64 - have);
        std::memcpy(rest_.data() + have, bytes, count);
        bytes += count;
        size -= count;
        have += count;
        if (have < 64) return;
        digest_block(rest_.data(), &state_);
    }
    for (; size >= 64; bytes += 64, size -= 64) digest_block(bytes, &state_);
    if (size > 0) std::memcpy(rest_.data(), bytes, size);
}

std::string Sha256::hex() {
    std::array<std::uint8_t, 128> tail{};
    const std::size_t rest = size_ % 64;
    std::memcpy(tail.data(), rest_.data(), rest);
    tail[rest] = 0x80;
    const std::size_t end = rest < 56 ? 64 : 128;
    for (std::size_t index = 0; index < 8; ++index)
        tail[end - 1 - index] = static_cast<std::uint8_t>((size_ * 8) >> (8 * index));
    for (std::size_t block = 0; block < end; block += 64) digest_block(tail.data() + block, &state_);
    std::string hex;
    for (const auto word : state_)
        for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[(word >> shift) & 15];
    return hex;
}

std::string sha256(const void* data, std::size_t size) {
    Sha256 digest;
    digest.add(data, size);
    return digest.hex();
}

}  // namespace runner
