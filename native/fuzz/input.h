// What a fuzz target takes from its input, and its assertions. An input that ends gives zeros.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

// A failed one aborts: libFuzzer then writes the input to a file and says where.
#define REQUIRE(condition)                                                             \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);   \
      std::abort();                                                                    \
    }                                                                                  \
  } while (false)

namespace sealbd::fuzz {

using Bytes = std::vector<uint8_t>;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(data, size) {}

  bool empty() const { return left_.empty(); }

  template <class Number = uint8_t>
  Number number() {
    Number value{};
    const size_t taken = std::min(sizeof value, left_.size());
    std::memcpy(&value, left_.data(), taken);
    left_ = left_.subspan(taken);
    return value;
  }

  // Below `limit`, which is not 0.
  size_t below(size_t limit) { return number<uint16_t>() % limit; }

  Bytes bytes(size_t size) {
    Bytes out(size);
    const size_t taken = std::min(size, left_.size());
    std::copy_n(left_.begin(), taken, out.begin());
    left_ = left_.subspan(taken);
    return out;
  }

  template <size_t size>
  std::array<uint8_t, size> array() {
    std::array<uint8_t, size> out{};
    const Bytes taken = bytes(size);
    std::copy(taken.begin(), taken.end(), out.begin());
    return out;
  }

  // All that is left, over and over.
  Bytes filled(size_t size) const {
    Bytes out(size);
    for (size_t i = 0; i < size && !left_.empty(); ++i) out[i] = static_cast<uint8_t>(left_[i % left_.size()] + i / left_.size());
    return out;
  }

 private:
  std::span<const uint8_t> left_;
};

}  // namespace sealbd::fuzz
