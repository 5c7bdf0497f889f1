#include "aes/cpuid.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace sealbd {
namespace {

#if defined(__x86_64__)

constexpr bool bit(uint32_t word, unsigned n) { return (word >> n & 1) != 0; }

// The register state that the operating system saves on a context switch (XCR0).
uint64_t enabled_state() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

CpuFeatures detect() {
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;
  CpuFeatures features{};
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return features;
  const bool ssse3 = bit(c, 9);
  const bool sse41 = bit(c, 19);
  features.sse42 = bit(c, 20) && sse41 && ssse3;
  features.aesni = bit(c, 25) && bit(c, 1) && ssse3 && sse41;
  const bool osxsave = bit(c, 27);
  const bool avx = bit(c, 28);
  if (!features.aesni || !osxsave || !avx) return features;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return features;
  constexpr uint64_t kYmm = 0x06;
  constexpr uint64_t kZmm = 0xe6;
  const uint64_t state = enabled_state();
  const bool vector_aes = bit(c, 9) && bit(c, 10);
  const bool avx2 = bit(b, 5);
  const bool avx512 = bit(b, 16) && bit(b, 30) && bit(b, 31);
  features.vaes256 = vector_aes && avx2 && (state & kYmm) == kYmm;
  features.vaes512 = features.vaes256 && avx512 && (state & kZmm) == kZmm;
  return features;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace sealbd
