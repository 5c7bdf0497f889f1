// Random bytes from the kernel.
#pragma once

#include <cstdint>
#include <span>

namespace sealbd {

// Fills `out` from getrandom(2), waiting for the kernel's pool at boot. False where the call fails.
bool random_fill(std::span<uint8_t> out);

}  // namespace sealbd
