// What is done with whole keys: making, comparing, MACs under derived keys, wrapping one key with another.
#pragma once

#include <cstdint>
#include <span>

#include "aes/kernel.h"
#include "keys/key_slots.h"

namespace sealbd {

constexpr size_t kWrappedBytes = kIvBytes + kKeyBytes + kTagBytes;

enum class OpStatus { ok, revoked, stale, memory, no_random, not_authentic };

OpStatus op_status(KeyStatus status);

OpStatus key_generate(KeyHandle& out);

OpStatus key_equals(KeyHandle a, KeyHandle b, bool& equal);

// CMAC under KDF(key, label, context).
OpStatus key_mac(const Kernel& with, KeyHandle key, std::span<const uint8_t> label, std::span<const uint8_t> context,
                 std::span<const uint8_t> data, Block& mac);

// AES-256-GCM of the bytes of `key` under KDF(kek, "sealbd/v1/wrap", ""): nonce || ciphertext || tag. The nonce is
// random, so one kek must not wrap more than 2^32 keys (SP 800-38D, section 8.3).
OpStatus key_wrap(const Kernel& with, KeyHandle kek, KeyHandle key, std::span<const uint8_t> aad,
                  std::span<uint8_t, kWrappedBytes> out);

OpStatus key_unwrap(const Kernel& with, KeyHandle kek, std::span<const uint8_t, kWrappedBytes> blob,
                    std::span<const uint8_t> aad, KeyHandle& out);

}  // namespace sealbd
