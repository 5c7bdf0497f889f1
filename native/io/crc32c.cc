#include "io/crc32c.h"

#include <array>
#include <cstring>

#include "aes/cpuid.h"
#include "aes/kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sealbd {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // bit-reversed

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][i] = crc;
  }
  for (size_t t = 1; t < 8; ++t) {
    for (size_t i = 0; i < 256; ++i) tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 0xff];
  }
  return tables;
}

constexpr Tables kTables = make_tables();

// Eight bytes at a time, one table for each. What is checksummed is ciphertext, or not secret: tables are fine.
uint32_t portable(const uint8_t* p, size_t size, uint32_t crc) {
  for (; size >= 8; p += 8, size -= 8) {
    uint32_t next = 0;
    for (size_t i = 0; i < 8; ++i) {
      const auto byte = static_cast<uint8_t>(p[i] ^ (i < 4 ? crc >> (8 * i) : 0));
      next ^= kTables[7 - i][byte];
    }
    crc = next;
  }
  for (; size > 0; ++p, --size) crc = crc >> 8 ^ kTables[0][(crc ^ *p) & 0xff];
  return crc;
}

#if defined(__x86_64__)

// x^n modulo the polynomial, bit-reversed.
constexpr uint32_t power_of_x(size_t n) {
  uint32_t value = 0x80000000;
  for (; n > 0; --n) value = value >> 1 ^ ((value & 1) != 0 ? kPolynomial : 0);
  return value;
}

// Three streams hide the latency of the CRC instruction; three times this is 16 bytes less than a block.
constexpr size_t kStream = 1360;
// A carry-less product of two reversed 32-bit values is x times too high in 64 bits, and the CRC instruction
// multiplies by x^32: so a shift by n bytes takes x^(8n - 33).
constexpr uint32_t kShift1 = power_of_x(8 * kStream - 33);
constexpr uint32_t kShift2 = power_of_x(16 * kStream - 33);

uint64_t word(const uint8_t* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

__attribute__((target("sse4.2,pclmul"))) uint64_t shifted(uint64_t crc, uint32_t by) {
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<long long>(crc)),
                                               _mm_cvtsi32_si128(static_cast<int>(by)), 0);
  return _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(product)));
}

__attribute__((target("sse4.2,pclmul"))) uint32_t sse42(const uint8_t* p, size_t size, uint32_t seed) {
  uint64_t crc = seed;
  for (; size >= 3 * kStream; p += 3 * kStream, size -= 3 * kStream) {
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t i = 0; i < kStream; i += 8) {
      crc = _mm_crc32_u64(crc, word(p + i));
      second = _mm_crc32_u64(second, word(p + kStream + i));
      third = _mm_crc32_u64(third, word(p + 2 * kStream + i));
    }
    crc = shifted(crc, kShift2) ^ shifted(second, kShift1) ^ third;
  }
  for (; size >= 8; p += 8, size -= 8) crc = _mm_crc32_u64(crc, word(p));
  auto narrow = static_cast<uint32_t>(crc);
  for (; size > 0; ++p, --size) narrow = _mm_crc32_u8(narrow, *p);
  return narrow;
}

#endif

using Update = uint32_t (*)(const uint8_t*, size_t, uint32_t);

// Follows the cipher kernel: where `portable` is forced, so is this.
Update select() {
#if defined(__x86_64__)
  if (cpu_features().sse42 && cpu_features().aesni && &kernel() != &kernel_portable) return sse42;
#endif
  return portable;
}

}  // namespace

uint32_t crc32c(std::span<const uint8_t> bytes, uint32_t seed) {
  static const Update update = select();
  return ~update(bytes.data(), bytes.size(), ~seed);
}

}  // namespace sealbd
