// The AES-256 kernels: one table of functions for each instruction set, one selector.
//
// A kernel never allocates, never fails, takes no branch and no memory address from key or data (the length and
// the place of the buffers are public). `src` and `dst` are equal or do not overlap. Lengths are in bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sealbd {

constexpr size_t kKeyBytes = 32;
constexpr size_t kAesBlock = 16;
constexpr size_t kTagBytes = 16;
constexpr size_t kIvBytes = 12;

using Key = std::array<uint8_t, kKeyBytes>;
using Block = std::array<uint8_t, kAesBlock>;

// The 15 round keys, in the byte order of FIPS 197.
struct alignas(16) AesKey {
  uint8_t round[15][kAesBlock];
};

// What GHASH needs for one hash subkey: its powers, the highest first, in a form private to the kernel.
constexpr size_t kGhashPowers = 16;
struct alignas(16) GhashKey {
  uint8_t power[kGhashPowers][kAesBlock];
};

struct GcmKey {
  AesKey aes;
  GhashKey ghash;
};

struct Kernel {
  const char* name;
  bool (*supported)();
  void (*expand)(const uint8_t* key, AesKey& out);
  void (*encrypt_block)(const AesKey& key, const uint8_t* in, uint8_t* out);
  // state = E(state ^ block) for each of `blocks` blocks: the chain of CBC-MAC and CMAC.
  void (*cbc_mac)(const AesKey& key, uint8_t* state, const uint8_t* data, size_t blocks);
  // CTR; the last 32 bits of the counter block count big-endian, modulo 2^32 (SP 800-38D's inc32).
  void (*ctr32)(const AesKey& key, const uint8_t* counter, const uint8_t* src, uint8_t* dst, size_t size);
  // Derives the GHASH powers of `key.aes`.
  void (*gcm_init)(GcmKey& key);
  // SP 800-38D with a 96-bit IV. Writes the ciphertext to dst and the tag.
  void (*gcm_seal)(const GcmKey& key, const uint8_t* iv, const uint8_t* aad, size_t aad_size, const uint8_t* src,
                   uint8_t* dst, size_t size, uint8_t* tag);
  // Decrypts into dst and writes the tag that the ciphertext should have carried. The caller compares: see gcm_open.
  void (*gcm_open)(const GcmKey& key, const uint8_t* iv, const uint8_t* aad, size_t aad_size, const uint8_t* src,
                   uint8_t* dst, size_t size, uint8_t* tag);
};

// Every kernel of this build, the fastest first.
std::span<const Kernel* const> kernels();

// Nothing where no kernel has this name.
const Kernel* find_kernel(const char* name);

// The kernel in use: the first that the processor supports, or the one that SEALBD_CPU names. Null, with a message
// in `error`, where that one is unknown or unsupported. The environment is read once.
const Kernel* select_kernel(const char** error);

// The same after a successful `select_kernel`, which the addon's start requires.
const Kernel& kernel();

// SP 800-38A CTR with a 128-bit big-endian counter.
void ctr128(const Kernel& with, const AesKey& key, const uint8_t* counter, const uint8_t* src, uint8_t* dst,
            size_t size);

// True and the plaintext in dst, or false and dst all zeros. dst must be memory that nobody else reads before this
// returns: it holds unverified plaintext until then.
bool gcm_open(const Kernel& with, const GcmKey& key, const uint8_t* iv, std::span<const uint8_t> aad,
              const uint8_t* src, uint8_t* dst, size_t size, const uint8_t* tag);

extern const Kernel kernel_vaes512;
extern const Kernel kernel_vaes256;
extern const Kernel kernel_aesni;
extern const Kernel kernel_portable;

}  // namespace sealbd
