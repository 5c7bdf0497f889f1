// Base64 (RFC 4648, section 4) of one key: 32 bytes, 44 characters of which the last is '='. No table is indexed by
// the key and no branch depends on it.
#pragma once

#include <cstdint>
#include <span>

#include "aes/kernel.h"

namespace sealbd {

constexpr size_t kKeyBase64Bytes = 44;

void base64_encode_key(std::span<const uint8_t, kKeyBytes> key, std::span<uint8_t, kKeyBase64Bytes> text);

// False where the text is not the canonical form of 32 bytes.
bool base64_decode_key(std::span<const uint8_t, kKeyBase64Bytes> text, std::span<uint8_t, kKeyBytes> key);

}  // namespace sealbd
