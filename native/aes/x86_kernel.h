// AES-256, CTR, GHASH and GCM for x86-64, written once over a vector type `V` of one, two or four 128-bit lanes.
//
// Each kernel file sets its target with `#pragma GCC target`, includes this header, supplies a `V` and takes the
// functions of `X86Kernel<V>`. Everything here is in an unnamed namespace or a template over such a V: a function
// compiled for one instruction set must never be merged by the linker with its namesake of another. For the same
// reason the kernel files include the standard headers before the pragma.
//
// GHASH works on byte-reversed blocks, as in Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and
// its Usage for Computing the GCM Mode": powers of H are stored times x, so that a product needs no shift, and
// 8 or 16 products are added up before one reduction.
#pragma once

#include <immintrin.h>

#include "aes/kernel.h"

namespace sealbd {
namespace {

#define SEALBD_INLINE inline __attribute__((always_inline))

SEALBD_INLINE __m128i load128(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
SEALBD_INLINE void store128(uint8_t* p, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }

SEALBD_INLINE __m128i reverse_mask128() { return _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

// memset and memcpy of a few bytes, here so that no library template is compiled for this instruction set.
SEALBD_INLINE void copy_bytes(uint8_t* to, const uint8_t* from, size_t n) { __builtin_memcpy(to, from, n); }
SEALBD_INLINE void erase(void* p, size_t n) {
  __builtin_memset(p, 0, n);
  __asm__ __volatile__("" : : "r"(p) : "memory");
}

template <int kRcon>
SEALBD_INLINE __m128i expand_even(__m128i previous, __m128i last) {
  const __m128i word = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(last, kRcon), 0xff);
  previous = _mm_xor_si128(previous, _mm_slli_si128(previous, 4));
  previous = _mm_xor_si128(previous, _mm_slli_si128(previous, 8));
  return _mm_xor_si128(previous, word);
}

SEALBD_INLINE __m128i expand_odd(__m128i previous, __m128i last) {
  const __m128i word = _mm_shuffle_epi32(_mm_aeskeygenassist_si128(last, 0), 0xaa);
  previous = _mm_xor_si128(previous, _mm_slli_si128(previous, 4));
  previous = _mm_xor_si128(previous, _mm_slli_si128(previous, 8));
  return _mm_xor_si128(previous, word);
}

// FIPS 197, section 5.2, for a 256-bit key.
inline void x86_expand(const uint8_t* bytes, AesKey& key) {
  __m128i even = load128(bytes);
  __m128i odd = load128(bytes + 16);
  store128(key.round[0], even);
  store128(key.round[1], odd);
#define SEALBD_TWO_ROUNDS(i, rcon)       \
  even = expand_even<rcon>(even, odd);   \
  store128(key.round[i], even);          \
  odd = expand_odd(odd, even);           \
  store128(key.round[(i) + 1], odd);
  SEALBD_TWO_ROUNDS(2, 0x01)
  SEALBD_TWO_ROUNDS(4, 0x02)
  SEALBD_TWO_ROUNDS(6, 0x04)
  SEALBD_TWO_ROUNDS(8, 0x08)
  SEALBD_TWO_ROUNDS(10, 0x10)
  SEALBD_TWO_ROUNDS(12, 0x20)
#undef SEALBD_TWO_ROUNDS
  store128(key.round[14], expand_even<0x40>(even, odd));
}

SEALBD_INLINE __m128i encrypt128(const AesKey& key, __m128i block) {
  block = _mm_xor_si128(block, load128(key.round[0]));
#pragma GCC unroll 13
  for (int r = 1; r < 14; ++r) block = _mm_aesenc_si128(block, load128(key.round[r]));
  return _mm_aesenclast_si128(block, load128(key.round[14]));
}

inline void x86_encrypt_block(const AesKey& key, const uint8_t* in, uint8_t* out) {
  store128(out, encrypt128(key, load128(in)));
}

inline void x86_cbc_mac(const AesKey& key, uint8_t* state, const uint8_t* data, size_t blocks) {
  __m128i chain = load128(state);
  for (size_t i = 0; i < blocks; ++i) chain = encrypt128(key, _mm_xor_si128(chain, load128(data + 16 * i)));
  store128(state, chain);
}

template <class V>
struct X86Kernel {
  using Reg = typename V::Reg;
  static constexpr size_t kGroup = 8;                      // vectors in flight
  static constexpr size_t kWidth = 16 * V::kLanes;         // bytes of a vector
  static constexpr size_t kGroupBytes = kGroup * kWidth;
  static constexpr size_t kFold = V::kLanes == 4 ? 4 : 8;  // vectors to one GHASH reduction
  static constexpr size_t kFirstPower = kGhashPowers - kFold * V::kLanes;

  // An unreduced product: low, middle and high 128-bit parts for each lane.
  struct Product {
    Reg low, middle, high;
  };

  // Two products at a time: a three-way XOR then takes both.
  static SEALBD_INLINE void add_products(Product& sum, Reg a, Reg power_a, Reg b, Reg power_b) {
    sum.low = V::xor3(sum.low, V::template clmul<0x00>(a, power_a), V::template clmul<0x00>(b, power_b));
    sum.high = V::xor3(sum.high, V::template clmul<0x11>(a, power_a), V::template clmul<0x11>(b, power_b));
    sum.middle = V::xor3(sum.middle, V::template clmul<0x01>(a, power_a), V::template clmul<0x10>(a, power_a));
    sum.middle = V::xor3(sum.middle, V::template clmul<0x01>(b, power_b), V::template clmul<0x10>(b, power_b));
  }

  // Modulo x^128 + x^7 + x^2 + x + 1, in reversed bit order: twice, the low 64 bits are folded upwards.
  static SEALBD_INLINE __m128i reduce(const Product& sum) {
    const Reg poly = V::broadcast(_mm_set_epi64x(0, static_cast<long long>(0xc200000000000000ULL)));
    const Reg middle = V::xor3(sum.middle, V::swap64(sum.low), V::template clmul<0x00>(sum.low, poly));
    const Reg high = V::xor3(sum.high, V::swap64(middle), V::template clmul<0x00>(middle, poly));
    return V::fold(high);
  }

  static SEALBD_INLINE Reg reverse(Reg v) { return V::shuffle8(v, V::broadcast(reverse_mask128())); }
  static SEALBD_INLINE Reg round_key(const AesKey& key, int r) { return V::broadcast(load128(key.round[r])); }

  // Two vectors, i and i + 1, of the kFold that share a reduction. The running hash enters with the first.
  static SEALBD_INLINE void hash_pair(const GhashKey& h, const uint8_t* data, size_t i, Product& sum, __m128i& y) {
    const size_t at = i % kFold;
    const uint8_t* const power = h.power[kFirstPower + at * V::kLanes];
    Reg first = reverse(V::load(data + i * kWidth));
    const Reg second = reverse(V::load(data + (i + 1) * kWidth));
    if (at == 0) {
      sum = {V::zero(), V::zero(), V::zero()};
      first = V::xor2(first, V::widen(y));
    }
    add_products(sum, first, V::load(power), second, V::load(power + kWidth));
    if (at == kFold - 2) y = reduce(sum);
  }

  // Encrypts or decrypts kGroup vectors and, between the rounds, hashes the group at `hashed` (null: none).
  template <bool kHash>
  static SEALBD_INLINE void crypt_group(const AesKey& key, const GhashKey* h, Reg& counter, const uint8_t* src,
                                        uint8_t* dst, const uint8_t* hashed, __m128i& y) {
    Reg state[kGroup];
    Product sum{V::zero(), V::zero(), V::zero()};
    const Reg first = round_key(key, 0);
#pragma GCC unroll 8
    for (size_t i = 0; i < kGroup; ++i) {
      state[i] = V::xor2(reverse(counter), first);
      counter = V::add32(counter, V::step());
    }
#pragma GCC unroll 13
    for (int r = 1; r < 14; ++r) {
      const Reg k = round_key(key, r);
#pragma GCC unroll 8
      for (size_t i = 0; i < kGroup; ++i) state[i] = V::aesenc(state[i], k);
      if constexpr (kHash) {
        // Pairs 0 to 3 after the rounds 1, 4, 7 and 10.
        if (r % 3 == 1 && r < 11) hash_pair(*h, hashed, static_cast<size_t>(r / 3 * 2), sum, y);
      }
    }
    const Reg last = round_key(key, 14);
#pragma GCC unroll 8
    for (size_t i = 0; i < kGroup; ++i) {
      // The last round adds its key at the end: adding the data to that key saves a step.
      state[i] = V::aesenclast(state[i], V::xor2(last, V::load(src + i * kWidth)));
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < kGroup; ++i) V::store(dst + i * kWidth, state[i]);
  }

  // What is left after the groups: whole vectors, then a part of one through a buffer.
  static void crypt_tail(const AesKey& key, Reg counter, const uint8_t* src, uint8_t* dst, size_t size) {
    alignas(64) uint8_t part[kWidth];
    while (size > 0) {
      Reg state = V::xor2(reverse(counter), round_key(key, 0));
      counter = V::add32(counter, V::step());
      for (int r = 1; r < 14; ++r) state = V::aesenc(state, round_key(key, r));
      if (size >= kWidth) {
        V::store(dst, V::aesenclast(state, V::xor2(round_key(key, 14), V::load(src))));
        src += kWidth;
        dst += kWidth;
        size -= kWidth;
        continue;
      }
      erase(part, kWidth);
      copy_bytes(part, src, size);
      V::store(part, V::aesenclast(state, V::xor2(round_key(key, 14), V::load(part))));
      copy_bytes(dst, part, size);
      erase(part, kWidth);
      return;
    }
  }

  // The counters of the lanes of the first vector, each block reversed, so that the 32 bits that count are lowest.
  static SEALBD_INLINE Reg counters(__m128i block) {
    return V::add32(V::broadcast(_mm_shuffle_epi8(block, reverse_mask128())), V::lane_numbers());
  }

  static void ctr32(const AesKey& key, const uint8_t* block, const uint8_t* src, uint8_t* dst, size_t size) {
    Reg counter = counters(load128(block));
    __m128i unused = _mm_setzero_si128();
    while (size >= kGroupBytes) {
      crypt_group<false>(key, nullptr, counter, src, dst, nullptr, unused);
      src += kGroupBytes;
      dst += kGroupBytes;
      size -= kGroupBytes;
    }
    if (size > 0) crypt_tail(key, counter, src, dst, size);
  }

  static SEALBD_INLINE __m128i multiply(__m128i a, __m128i b) {
    const __m128i poly = _mm_set_epi64x(0, static_cast<long long>(0xc200000000000000ULL));
    const __m128i low = _mm_clmulepi64_si128(a, b, 0x00);
    __m128i middle = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    __m128i high = _mm_clmulepi64_si128(a, b, 0x11);
    middle = _mm_xor_si128(middle, _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, poly, 0)));
    high = _mm_xor_si128(high, _mm_xor_si128(_mm_shuffle_epi32(middle, 0x4e), _mm_clmulepi64_si128(middle, poly, 0)));
    return high;
  }

  // Hashes `size` bytes, padded with zeros to whole blocks. Zero padding is part of GHASH wherever it is used here.
  static void hash(const GhashKey& h, const uint8_t* data, size_t size, __m128i& y) {
    Product sum{V::zero(), V::zero(), V::zero()};
    for (; size >= kFold * kWidth; data += kFold * kWidth, size -= kFold * kWidth) {
#pragma GCC unroll 4
      for (size_t i = 0; i < kFold; i += 2) hash_pair(h, data, i, sum, y);
    }
    const __m128i h1 = load128(h.power[kGhashPowers - 1]);
    for (; size >= 16; data += 16, size -= 16) {
      y = multiply(_mm_xor_si128(y, _mm_shuffle_epi8(load128(data), reverse_mask128())), h1);
    }
    if (size == 0) return;
    uint8_t part[16] = {};
    copy_bytes(part, data, size);
    y = multiply(_mm_xor_si128(y, _mm_shuffle_epi8(load128(part), reverse_mask128())), h1);
  }

  static void gcm_init(GcmKey& key) {
    uint8_t subkey[16] = {};
    x86_encrypt_block(key.aes, subkey, subkey);
    const __m128i h = _mm_shuffle_epi8(load128(subkey), reverse_mask128());
    // H times x: both halves shift by one bit. `carries` has the bit that leaves the low half for the bottom of the
    // high one, and the bit that falls out at the top for the polynomial.
    const __m128i carries = _mm_srai_epi32(_mm_shuffle_epi32(h, 0xd3), 31);
    const __m128i poly = _mm_set_epi64x(static_cast<long long>(0xc200000000000001ULL), 1);
    const __m128i h1 = _mm_xor_si128(_mm_add_epi64(h, h), _mm_and_si128(carries, poly));
    __m128i power = h1;
    for (size_t i = kGhashPowers; i-- > 0;) {
      store128(key.ghash.power[i], power);
      power = multiply(power, h1);
    }
    erase(subkey, sizeof subkey);
  }

  template <bool kSeal>
  static SEALBD_INLINE void gcm(const GcmKey& key, const uint8_t* iv, const uint8_t* aad, size_t aad_size,
                                const uint8_t* src, uint8_t* dst, size_t size, uint8_t* tag) {
    alignas(16) uint8_t j0[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    copy_bytes(j0, iv, kIvBytes);
    const __m128i mask = encrypt128(key.aes, load128(j0));
    const __m128i lengths =
        _mm_set_epi64x(static_cast<long long>(aad_size * 8), static_cast<long long>(size * 8));
    j0[15] = 2;
    Reg counter = counters(load128(j0));
    __m128i y = _mm_setzero_si128();
    hash(key.ghash, aad, aad_size, y);
    const uint8_t* pending = nullptr;
    if (kSeal && size >= kGroupBytes) {
      crypt_group<false>(key.aes, nullptr, counter, src, dst, nullptr, y);
      pending = dst;
      src += kGroupBytes;
      dst += kGroupBytes;
      size -= kGroupBytes;
    }
    while (size >= kGroupBytes) {
      // A group of ciphertext is hashed while the next is encrypted, or the same one decrypted.
      crypt_group<true>(key.aes, &key.ghash, counter, src, dst, kSeal ? pending : src, y);
      pending = dst;
      src += kGroupBytes;
      dst += kGroupBytes;
      size -= kGroupBytes;
    }
    if (kSeal && pending != nullptr) hash(key.ghash, pending, kGroupBytes, y);
    if (size > 0) {
      if (!kSeal) hash(key.ghash, src, size, y);
      crypt_tail(key.aes, counter, src, dst, size);
      if (kSeal) hash(key.ghash, dst, size, y);
    }
    y = multiply(_mm_xor_si128(y, lengths), load128(key.ghash.power[kGhashPowers - 1]));
    store128(tag, _mm_xor_si128(_mm_shuffle_epi8(y, reverse_mask128()), mask));
  }

  static void gcm_seal(const GcmKey& key, const uint8_t* iv, const uint8_t* aad, size_t aad_size, const uint8_t* src,
                       uint8_t* dst, size_t size, uint8_t* tag) {
    gcm<true>(key, iv, aad, aad_size, src, dst, size, tag);
  }

  static void gcm_open(const GcmKey& key, const uint8_t* iv, const uint8_t* aad, size_t aad_size, const uint8_t* src,
                       uint8_t* dst, size_t size, uint8_t* tag) {
    gcm<false>(key, iv, aad, aad_size, src, dst, size, tag);
  }

  static constexpr Kernel table(const char* name, bool (*supported)()) {
    return {name,  supported, x86_expand, x86_encrypt_block, x86_cbc_mac,
            ctr32, gcm_init,  gcm_seal,   gcm_open};
  }
};

}  // namespace
}  // namespace sealbd
