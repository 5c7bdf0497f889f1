// CRC-32C (Castagnoli, RFC 3720): the checksum against accidents.
#pragma once

#include <cstdint>
#include <span>

namespace sealbd {

// The CRC of what was checksummed into `seed` (0: nothing yet) followed by `bytes`.
uint32_t crc32c(std::span<const uint8_t> bytes, uint32_t seed = 0);

}  // namespace sealbd
