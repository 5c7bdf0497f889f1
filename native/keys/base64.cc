#include "keys/base64.h"

namespace sealbd {
namespace {

// All ones where a < b, else zero; for small non-negative values.
constexpr uint32_t less(uint32_t a, uint32_t b) { return 0 - ((a - b) >> 31); }
constexpr uint32_t in_range(uint32_t c, uint32_t low, uint32_t high) { return ~less(c, low) & ~less(high, c); }

constexpr uint8_t encode_digit(uint32_t v) {
  const uint32_t c = (in_range(v, 0, 25) & (v + 'A')) | (in_range(v, 26, 51) & (v - 26 + 'a')) |
                     (in_range(v, 52, 61) & (v - 52 + '0')) | (in_range(v, 62, 62) & '+') |
                     (in_range(v, 63, 63) & '/');
  return static_cast<uint8_t>(c);
}

// The value of a digit, and bits above the sixth where it is none.
constexpr uint32_t decode_digit(uint32_t c) {
  const uint32_t upper = in_range(c, 'A', 'Z');
  const uint32_t lower = in_range(c, 'a', 'z');
  const uint32_t digit = in_range(c, '0', '9');
  const uint32_t plus = in_range(c, '+', '+');
  const uint32_t slash = in_range(c, '/', '/');
  const uint32_t value = (upper & (c - 'A')) | (lower & (c - 'a' + 26)) | (digit & (c - '0' + 52)) | (plus & 62) |
                         (slash & 63);
  return value | (~(upper | lower | digit | plus | slash) & 0x100);
}

}  // namespace

void base64_encode_key(std::span<const uint8_t, kKeyBytes> key, std::span<uint8_t, kKeyBase64Bytes> text) {
  for (size_t group = 0; group < 11; ++group) {
    const size_t at = 3 * group;
    const uint32_t third = at + 2 < kKeyBytes ? key[at + 2] : 0U;
    const uint32_t bits = uint32_t{key[at]} << 16 | uint32_t{key[at + 1]} << 8 | third;
    for (size_t i = 0; i < 4; ++i) text[4 * group + i] = encode_digit(bits >> (18 - 6 * i) & 63);
  }
  text[kKeyBase64Bytes - 1] = '=';
}

bool base64_decode_key(std::span<const uint8_t, kKeyBase64Bytes> text, std::span<uint8_t, kKeyBytes> key) {
  uint32_t bad = text[kKeyBase64Bytes - 1] ^ uint32_t{'='};
  for (size_t group = 0; group < 11; ++group) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) {
      const bool padding = 4 * group + i == kKeyBase64Bytes - 1;
      const uint32_t value = padding ? 0 : decode_digit(text[4 * group + i]);
      bad |= value & 0x100;
      bits = bits << 6 | (value & 63);
    }
    for (size_t i = 0; i < 3; ++i) {
      const auto byte = static_cast<uint8_t>(bits >> (16 - 8 * i));
      if (3 * group + i < kKeyBytes) {
        key[3 * group + i] = byte;
      } else {
        bad |= byte;  // bits beyond the 256 must be zero, else the text is not canonical
      }
    }
  }
  return bad == 0;
}

}  // namespace sealbd
