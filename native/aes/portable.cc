// AES-256 and GHASH in plain C++, in constant time: no table is indexed by and no branch depends on key or data.
//
// AES is bitsliced: four blocks at once, slice b holds bit b of all 64 bytes. Byte (row, column) of block j is at
// bit 16*row + 4*column + j, so that ShiftRows rotates 16-bit fields by nibbles and MixColumns rotates the word by
// 16 bits. The S-box is the circuit of Boyar and Peralta, "A depth-16 circuit for the AES S-box" (2011).
// GHASH multiplies bit by bit as in SP 800-38D, algorithm 1, with masks instead of branches.
#include <cstring>

#include "aes/kernel.h"
#include "keys/wipe.h"

namespace sealbd {
namespace {

struct Slices {
  uint64_t bit[8];
};

struct SlicedKey {
  Slices round[15];
};

constexpr size_t kBatch = 4 * kAesBlock;

// Transposes the 8x8 bit matrix whose rows are the bytes of x.
constexpr uint64_t transpose8(uint64_t x) {
  uint64_t t = (x ^ x >> 7) & 0x00aa00aa00aa00aaULL;
  x ^= t ^ t << 7;
  t = (x ^ x >> 14) & 0x0000cccc0000ccccULL;
  x ^= t ^ t << 14;
  t = (x ^ x >> 28) & 0x00000000f0f0f0f0ULL;
  return x ^ t ^ t << 28;
}

// The place of byte `at` (4*column + row, the order of FIPS 197) of block j.
constexpr size_t place(size_t at, size_t j) { return 16 * (at % 4) + 4 * (at / 4) + j; }

void slice(const uint8_t* blocks, Slices& s) {
  uint8_t ordered[kBatch];
  for (size_t j = 0; j < 4; ++j) {
    for (size_t at = 0; at < kAesBlock; ++at) ordered[place(at, j)] = blocks[kAesBlock * j + at];
  }
  s = {};
  for (size_t word = 0; word < 8; ++word) {
    uint64_t rows = 0;
    for (size_t i = 0; i < 8; ++i) rows |= uint64_t{ordered[8 * word + i]} << (8 * i);
    rows = transpose8(rows);
    for (size_t b = 0; b < 8; ++b) s.bit[b] |= (rows >> (8 * b) & 0xff) << (8 * word);
  }
  wipe(ordered, sizeof ordered);
}

void unslice(const Slices& s, uint8_t* blocks) {
  uint8_t ordered[kBatch];
  for (size_t word = 0; word < 8; ++word) {
    uint64_t rows = 0;
    for (size_t b = 0; b < 8; ++b) rows |= (s.bit[b] >> (8 * word) & 0xff) << (8 * b);
    rows = transpose8(rows);
    for (size_t i = 0; i < 8; ++i) ordered[8 * word + i] = static_cast<uint8_t>(rows >> (8 * i));
  }
  for (size_t j = 0; j < 4; ++j) {
    for (size_t at = 0; at < kAesBlock; ++at) blocks[kAesBlock * j + at] = ordered[place(at, j)];
  }
  wipe(ordered, sizeof ordered);
}

// SubBytes. In the paper's names x0 is the highest bit of the input and s0 of the output.
void sub_bytes(Slices& s) {
  const uint64_t x0 = s.bit[7], x1 = s.bit[6], x2 = s.bit[5], x3 = s.bit[4];
  const uint64_t x4 = s.bit[3], x5 = s.bit[2], x6 = s.bit[1], x7 = s.bit[0];

  // The top linear layer.
  const uint64_t y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5;
  const uint64_t t0 = x1 ^ x2, y1 = t0 ^ x7, y4 = y1 ^ x3, y12 = y13 ^ y14;
  const uint64_t y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8, t1 = x4 ^ y12;
  const uint64_t y15 = t1 ^ x5, y20 = t1 ^ x1, y6 = y15 ^ x7, y10 = y15 ^ t0;
  const uint64_t y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
  const uint64_t y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;

  // Inversion in GF(2^8) through GF(2^4).
  const uint64_t t2 = y12 & y15, t3 = y3 & y6, t4 = t3 ^ t2, t5 = y4 & x7, t6 = t5 ^ t2;
  const uint64_t t7 = y13 & y16, t8 = y5 & y1, t9 = t8 ^ t7, t10 = y2 & y7, t11 = t10 ^ t7;
  const uint64_t t12 = y9 & y11, t13 = y14 & y17, t14 = t13 ^ t12, t15 = y8 & y10, t16 = t15 ^ t12;
  const uint64_t t17 = t4 ^ t14, t18 = t6 ^ t16, t19 = t9 ^ t14, t20 = t11 ^ t16;
  const uint64_t t21 = t17 ^ y20, t22 = t18 ^ y19, t23 = t19 ^ y21, t24 = t20 ^ y18;
  const uint64_t t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t28 = t25 & t27, t29 = t28 ^ t22;
  const uint64_t t30 = t23 ^ t24, t31 = t22 ^ t26, t32 = t31 & t30, t33 = t32 ^ t24, t34 = t23 ^ t33;
  const uint64_t t35 = t27 ^ t33, t36 = t24 & t35, t37 = t36 ^ t34, t38 = t27 ^ t36, t39 = t29 & t38;
  const uint64_t t40 = t25 ^ t39, t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40, t44 = t33 ^ t37;
  const uint64_t t45 = t42 ^ t41;
  const uint64_t z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7;
  const uint64_t z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4;
  const uint64_t z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14;
  const uint64_t z17 = t41 & y8;

  // The bottom linear layer, with the affine constant 0x63 in the complements.
  const uint64_t t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10, t50 = z2 ^ z12;
  const uint64_t t51 = z2 ^ z5, t52 = z7 ^ z8, t53 = z0 ^ z3, t54 = z6 ^ z7, t55 = z16 ^ z17;
  const uint64_t t56 = z12 ^ t48, t57 = t50 ^ t53, t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57;
  const uint64_t t61 = z14 ^ t57, t62 = t52 ^ t58, t63 = t49 ^ t58, t64 = z4 ^ t59, t65 = t61 ^ t62;
  const uint64_t t66 = z1 ^ t63, t67 = t64 ^ t65, s3 = t53 ^ t66;
  s.bit[7] = t59 ^ t63;
  s.bit[6] = t64 ^ ~s3;
  s.bit[5] = t55 ^ ~t67;
  s.bit[4] = s3;
  s.bit[3] = t51 ^ t66;
  s.bit[2] = t47 ^ t65;
  s.bit[1] = t56 ^ ~t62;
  s.bit[0] = t48 ^ ~t60;
}

constexpr uint64_t rotate_rows(uint64_t x, unsigned rows) { return x >> (16 * rows) | x << (64 - 16 * rows); }

constexpr uint64_t shift_rows(uint64_t x) {
  return (x & 0x000000000000ffffULL) |                                               // row 0 stays
         (x >> 4 & 0x000000000fff0000ULL) | (x << 12 & 0x00000000f0000000ULL) |      // row 1 by one column
         (x >> 8 & 0x000000ff00000000ULL) | (x << 8 & 0x0000ff0000000000ULL) |       // row 2 by two
         (x >> 12 & 0x000f000000000000ULL) | (x << 4 & 0xfff0000000000000ULL);       // row 3 by three
}

// With t = a ^ (a of the row below): 2t ^ (a of the row below) ^ (t two rows below).
void mix_columns(Slices& s) {
  uint64_t t[8];
  for (size_t b = 0; b < 8; ++b) t[b] = s.bit[b] ^ rotate_rows(s.bit[b], 1);
  for (size_t b = 0; b < 8; ++b) {
    const uint64_t doubled = (b == 0 ? 0 : t[b - 1]) ^ (b == 0 || b == 1 || b == 3 || b == 4 ? t[7] : 0);
    s.bit[b] = doubled ^ rotate_rows(s.bit[b], 1) ^ rotate_rows(t[b], 2);
  }
}

void add_key(Slices& s, const Slices& key) {
  for (size_t b = 0; b < 8; ++b) s.bit[b] ^= key.bit[b];
}

void slice_key(const AesKey& key, SlicedKey& out) {
  Secret<std::array<uint8_t, kBatch>> copies;
  for (size_t r = 0; r < 15; ++r) {
    for (size_t j = 0; j < 4; ++j) std::memcpy(copies.value.data() + kAesBlock * j, key.round[r], kAesBlock);
    slice(copies.value.data(), out.round[r]);
  }
}

// Encrypts four blocks in place.
void encrypt4(const SlicedKey& key, uint8_t* blocks) {
  Slices s;
  slice(blocks, s);
  add_key(s, key.round[0]);
  for (size_t r = 1; r < 15; ++r) {
    sub_bytes(s);
    for (uint64_t& bits : s.bit) bits = shift_rows(bits);
    if (r < 14) mix_columns(s);
    add_key(s, key.round[r]);
  }
  unslice(s, blocks);
  wipe(&s, sizeof s);
}

// SubWord and then, for even rounds, RotWord (FIPS 197, section 5.2).
void sub_word(uint8_t* word, bool rotate) {
  Secret<std::array<uint8_t, kBatch>> bytes;
  for (size_t i = 0; i < 4; ++i) bytes.value[i] = word[rotate ? (i + 1) % 4 : i];
  Secret<Slices> s;
  slice(bytes.value.data(), s.value);
  sub_bytes(s.value);
  unslice(s.value, bytes.value.data());
  std::memcpy(word, bytes.value.data(), 4);
}

void expand(const uint8_t* bytes, AesKey& key) {
  uint8_t* const words = key.round[0];
  std::memcpy(words, bytes, kKeyBytes);
  uint8_t rcon = 1;
  for (size_t i = 8; i < 60; ++i) {
    uint8_t word[4];
    std::memcpy(word, words + 4 * (i - 1), 4);
    if (i % 4 == 0) sub_word(word, i % 8 == 0);
    if (i % 8 == 0) {
      word[0] ^= rcon;
      rcon = static_cast<uint8_t>(rcon << 1);
    }
    for (size_t b = 0; b < 4; ++b) words[4 * i + b] = word[b] ^ words[4 * (i - 8) + b];
    wipe(word, sizeof word);
  }
}

void encrypt_block(const AesKey& key, const uint8_t* in, uint8_t* out) {
  Secret<SlicedKey> sliced;
  slice_key(key, sliced.value);
  Secret<std::array<uint8_t, kBatch>> blocks;
  std::memcpy(blocks.value.data(), in, kAesBlock);
  encrypt4(sliced.value, blocks.value.data());
  std::memcpy(out, blocks.value.data(), kAesBlock);
}

void cbc_mac(const AesKey& key, uint8_t* state, const uint8_t* data, size_t blocks) {
  Secret<SlicedKey> sliced;
  slice_key(key, sliced.value);
  Secret<std::array<uint8_t, kBatch>> chain;
  std::memcpy(chain.value.data(), state, kAesBlock);
  for (size_t i = 0; i < blocks; ++i) {
    for (size_t b = 0; b < kAesBlock; ++b) chain.value[b] ^= data[kAesBlock * i + b];
    encrypt4(sliced.value, chain.value.data());
  }
  std::memcpy(state, chain.value.data(), kAesBlock);
}

void store_be32(uint8_t* p, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(value >> (24 - 8 * i));
}

uint32_t load_be32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3];
}

void ctr32(const AesKey& key, const uint8_t* counter, const uint8_t* src, uint8_t* dst, size_t size) {
  Secret<SlicedKey> sliced;
  slice_key(key, sliced.value);
  Secret<std::array<uint8_t, kBatch>> stream;
  uint32_t count = load_be32(counter + 12);
  for (size_t done = 0; done < size; done += kBatch) {
    for (size_t j = 0; j < 4; ++j) {
      std::memcpy(stream.value.data() + kAesBlock * j, counter, 12);
      store_be32(stream.value.data() + kAesBlock * j + 12, count++);
    }
    encrypt4(sliced.value, stream.value.data());
    const size_t part = size - done < kBatch ? size - done : kBatch;
    for (size_t i = 0; i < part; ++i) dst[done + i] = src[done + i] ^ stream.value[i];
  }
}

// A GHASH element, the first bit of the block highest.
struct Element {
  uint64_t high;
  uint64_t low;
};

Element load_element(const uint8_t* p) {
  return {uint64_t{load_be32(p)} << 32 | load_be32(p + 4), uint64_t{load_be32(p + 8)} << 32 | load_be32(p + 12)};
}

void store_element(uint8_t* p, const Element& e) {
  store_be32(p, static_cast<uint32_t>(e.high >> 32));
  store_be32(p + 4, static_cast<uint32_t>(e.high));
  store_be32(p + 8, static_cast<uint32_t>(e.low >> 32));
  store_be32(p + 12, static_cast<uint32_t>(e.low));
}

Element multiply(const Element& x, Element v) {
  Element z{0, 0};
  for (unsigned i = 0; i < 128; ++i) {
    const uint64_t take = 0 - ((i < 64 ? x.high >> (63 - i) : x.low >> (127 - i)) & 1);
    z.high ^= v.high & take;
    z.low ^= v.low & take;
    const uint64_t carry = 0 - (v.low & 1);
    v.low = v.low >> 1 | v.high << 63;
    v.high = v.high >> 1 ^ (carry & 0xe100000000000000ULL);
  }
  return z;
}

// Hashes `size` bytes, padded with zeros to whole blocks.
void hash(const Element& h, const uint8_t* data, size_t size, Element& y) {
  for (size_t done = 0; done < size; done += kAesBlock) {
    uint8_t block[kAesBlock] = {};
    std::memcpy(block, data + done, size - done < kAesBlock ? size - done : kAesBlock);
    const Element e = load_element(block);
    y = multiply({y.high ^ e.high, y.low ^ e.low}, h);
  }
}

void gcm_init(GcmKey& key) {
  key.ghash = {};
  encrypt_block(key.aes, key.ghash.power[0], key.ghash.power[0]);
}

void gcm_tag(const GcmKey& key, const uint8_t* j0, const uint8_t* aad, size_t aad_size, const uint8_t* ciphertext,
             size_t size, uint8_t* tag) {
  const Element h = load_element(key.ghash.power[0]);
  Element y{0, 0};
  hash(h, aad, aad_size, y);
  hash(h, ciphertext, size, y);
  y = multiply({y.high ^ uint64_t{aad_size} * 8, y.low ^ uint64_t{size} * 8}, h);
  uint8_t mask[kAesBlock];
  encrypt_block(key.aes, j0, mask);
  store_element(tag, y);
  for (size_t i = 0; i < kTagBytes; ++i) tag[i] ^= mask[i];
}

Block initial_counter(const uint8_t* iv) {
  Block j0{};
  std::memcpy(j0.data(), iv, kIvBytes);
  j0[15] = 1;
  return j0;
}

void gcm_seal(const GcmKey& key, const uint8_t* iv, const uint8_t* aad, size_t aad_size, const uint8_t* src,
              uint8_t* dst, size_t size, uint8_t* tag) {
  Block block = initial_counter(iv);
  block[15] = 2;
  ctr32(key.aes, block.data(), src, dst, size);
  block[15] = 1;
  gcm_tag(key, block.data(), aad, aad_size, dst, size, tag);
}

void gcm_open_unchecked(const GcmKey& key, const uint8_t* iv, const uint8_t* aad, size_t aad_size, const uint8_t* src,
                        uint8_t* dst, size_t size, uint8_t* tag) {
  Block block = initial_counter(iv);
  gcm_tag(key, block.data(), aad, aad_size, src, size, tag);
  block[15] = 2;
  ctr32(key.aes, block.data(), src, dst, size);
}

bool supported() { return true; }

}  // namespace

constinit const Kernel kernel_portable{"portable", supported, expand,   encrypt_block,     cbc_mac,
                             ctr32,      gcm_init,  gcm_seal, gcm_open_unchecked};

}  // namespace sealbd
