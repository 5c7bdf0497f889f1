// AES-256-CMAC (SP 800-38B) and the key derivation function made of it (SP 800-108r1, counter mode).
#pragma once

#include <initializer_list>
#include <span>

#include "aes/kernel.h"

namespace sealbd {

// A key made ready: round keys and the two subkeys.
struct CmacKey {
  AesKey aes;
  Block k1;
  Block k2;
};

void cmac_init(const Kernel& with, const uint8_t* key, CmacKey& out);

// The MAC of the parts, one after the other.
Block cmac(const Kernel& with, const CmacKey& key, std::initializer_list<std::span<const uint8_t>> parts);

// SP 800-108r1, section 4.1: K(i) = CMAC(key, be32(i) || fixed input), cut to the size of `out`.
void kdf(const Kernel& with, const CmacKey& key, std::initializer_list<std::span<const uint8_t>> fixed_input,
         std::span<uint8_t> out);

// The fixed input of docs/FORMAT.md: label || 0x00 || context || be32(256); the result is a key.
void derive_key(const Kernel& with, const uint8_t* key, std::span<const uint8_t> label,
                std::span<const uint8_t> context, uint8_t* out);

}  // namespace sealbd
