// AES-NI and PCLMULQDQ on 128-bit vectors, in the encoding without VEX: any x86-64 processor since 2010.
#if defined(__x86_64__)
#include "aes/cpuid.h"
#include "aes/kernel.h"

#pragma GCC target("aes,pclmul,ssse3,sse4.1")
#include "aes/x86_kernel.h"

namespace sealbd {
namespace {

struct Vector128 {
  using Reg = __m128i;
  static constexpr size_t kLanes = 1;

  static SEALBD_INLINE Reg zero() { return _mm_setzero_si128(); }
  static SEALBD_INLINE Reg load(const uint8_t* p) { return load128(p); }
  static SEALBD_INLINE void store(uint8_t* p, Reg v) { store128(p, v); }
  static SEALBD_INLINE Reg broadcast(__m128i v) { return v; }
  static SEALBD_INLINE Reg widen(__m128i v) { return v; }
  static SEALBD_INLINE Reg xor2(Reg a, Reg b) { return _mm_xor_si128(a, b); }
  static SEALBD_INLINE Reg xor3(Reg a, Reg b, Reg c) { return xor2(a, xor2(b, c)); }
  static SEALBD_INLINE Reg add32(Reg a, Reg b) { return _mm_add_epi32(a, b); }
  static SEALBD_INLINE Reg shuffle8(Reg v, Reg mask) { return _mm_shuffle_epi8(v, mask); }
  static SEALBD_INLINE Reg swap64(Reg v) { return _mm_shuffle_epi32(v, 0x4e); }
  static SEALBD_INLINE Reg aesenc(Reg v, Reg k) { return _mm_aesenc_si128(v, k); }
  static SEALBD_INLINE Reg aesenclast(Reg v, Reg k) { return _mm_aesenclast_si128(v, k); }
  template <int kHalves>
  static SEALBD_INLINE Reg clmul(Reg a, Reg b) {
    return _mm_clmulepi64_si128(a, b, kHalves);
  }
  static SEALBD_INLINE Reg lane_numbers() { return zero(); }
  static SEALBD_INLINE Reg step() { return _mm_set_epi64x(0, 1); }
  static SEALBD_INLINE __m128i fold(Reg v) { return v; }
};

bool supported() { return cpu_features().aesni; }

}  // namespace

constinit const Kernel kernel_aesni = X86Kernel<Vector128>::table("aesni", supported);

}  // namespace sealbd
#endif
