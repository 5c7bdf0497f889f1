// VAES and VPCLMULQDQ on 256-bit vectors: two AES blocks to a register, for processors without AVX-512.
#if defined(__x86_64__)
#include "aes/cpuid.h"
#include "aes/kernel.h"

#pragma GCC target("avx2,vaes,vpclmulqdq,aes,pclmul,ssse3,sse4.1")
#include "aes/x86_kernel.h"

namespace sealbd {
namespace {

struct Vector256 {
  using Reg = __m256i;
  static constexpr size_t kLanes = 2;

  static SEALBD_INLINE Reg zero() { return _mm256_setzero_si256(); }
  static SEALBD_INLINE Reg load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Reg*>(p)); }
  static SEALBD_INLINE void store(uint8_t* p, Reg v) { _mm256_storeu_si256(reinterpret_cast<Reg*>(p), v); }
  static SEALBD_INLINE Reg broadcast(__m128i v) { return _mm256_broadcastsi128_si256(v); }
  static SEALBD_INLINE Reg widen(__m128i v) { return _mm256_zextsi128_si256(v); }
  static SEALBD_INLINE Reg xor2(Reg a, Reg b) { return _mm256_xor_si256(a, b); }
  static SEALBD_INLINE Reg xor3(Reg a, Reg b, Reg c) { return xor2(a, xor2(b, c)); }
  static SEALBD_INLINE Reg add32(Reg a, Reg b) { return _mm256_add_epi32(a, b); }
  static SEALBD_INLINE Reg shuffle8(Reg v, Reg mask) { return _mm256_shuffle_epi8(v, mask); }
  static SEALBD_INLINE Reg swap64(Reg v) { return _mm256_shuffle_epi32(v, 0x4e); }
  static SEALBD_INLINE Reg aesenc(Reg v, Reg k) { return _mm256_aesenc_epi128(v, k); }
  static SEALBD_INLINE Reg aesenclast(Reg v, Reg k) { return _mm256_aesenclast_epi128(v, k); }
  template <int kHalves>
  static SEALBD_INLINE Reg clmul(Reg a, Reg b) {
    return _mm256_clmulepi64_epi128(a, b, kHalves);
  }
  static SEALBD_INLINE Reg lane_numbers() { return _mm256_set_epi64x(0, 1, 0, 0); }
  static SEALBD_INLINE Reg step() { return _mm256_set_epi64x(0, 2, 0, 2); }
  static SEALBD_INLINE __m128i fold(Reg v) {
    return _mm_xor_si128(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  }
};

bool supported() { return cpu_features().vaes256; }

}  // namespace

constinit const Kernel kernel_vaes256 = X86Kernel<Vector256>::table("vaes256", supported);

}  // namespace sealbd
#endif
