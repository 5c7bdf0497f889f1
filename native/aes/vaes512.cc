// VAES and VPCLMULQDQ on 512-bit vectors: four AES blocks to a register.
#if defined(__x86_64__)
#include "aes/cpuid.h"
#include "aes/kernel.h"

// GCC 12 warns about the deliberately undefined operands inside its own AVX-512 intrinsics (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512vl,avx2,vaes,vpclmulqdq,aes,pclmul,ssse3,sse4.1")
#include "aes/x86_kernel.h"

namespace sealbd {
namespace {

struct Vector512 {
  using Reg = __m512i;
  static constexpr size_t kLanes = 4;

  static SEALBD_INLINE Reg zero() { return _mm512_setzero_si512(); }
  static SEALBD_INLINE Reg load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static SEALBD_INLINE void store(uint8_t* p, Reg v) { _mm512_storeu_si512(p, v); }
  static SEALBD_INLINE Reg broadcast(__m128i v) { return _mm512_broadcast_i32x4(v); }
  static SEALBD_INLINE Reg widen(__m128i v) { return _mm512_zextsi128_si512(v); }
  static SEALBD_INLINE Reg xor2(Reg a, Reg b) { return _mm512_xor_si512(a, b); }
  static SEALBD_INLINE Reg xor3(Reg a, Reg b, Reg c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
  static SEALBD_INLINE Reg add32(Reg a, Reg b) { return _mm512_add_epi32(a, b); }
  static SEALBD_INLINE Reg shuffle8(Reg v, Reg mask) { return _mm512_shuffle_epi8(v, mask); }
  static SEALBD_INLINE Reg swap64(Reg v) { return _mm512_shuffle_epi32(v, static_cast<_MM_PERM_ENUM>(0x4e)); }
  static SEALBD_INLINE Reg aesenc(Reg v, Reg k) { return _mm512_aesenc_epi128(v, k); }
  static SEALBD_INLINE Reg aesenclast(Reg v, Reg k) { return _mm512_aesenclast_epi128(v, k); }
  template <int kHalves>
  static SEALBD_INLINE Reg clmul(Reg a, Reg b) {
    return _mm512_clmulepi64_epi128(a, b, kHalves);
  }
  static SEALBD_INLINE Reg lane_numbers() { return _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0); }
  static SEALBD_INLINE Reg step() { return _mm512_set_epi64(0, 4, 0, 4, 0, 4, 0, 4); }
  static SEALBD_INLINE __m128i fold(Reg v) {
    const __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  }
};

bool supported() { return cpu_features().vaes512; }

}  // namespace

constinit const Kernel kernel_vaes512 = X86Kernel<Vector512>::table("vaes512", supported);

}  // namespace sealbd
#endif
