// Memory for key material: locked into RAM, out of core dumps, empty in forked children, with an inaccessible page
// on either side. Regions are never given back: what they hold is wiped slot by slot, and they are used again.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sealbd {

struct SecureMemoryState {
  bool locked;   // false once mlock was refused for any region
  size_t bytes;  // of all regions, without their guard pages
};

// Maps `bytes` (rounded up to pages) of zeroed memory. Null where the kernel refuses the mapping or one of the
// protections other than mlock; a refused mlock is remembered in `secure_memory_state`.
uint8_t* secure_map(size_t bytes);

SecureMemoryState secure_memory_state();

}  // namespace sealbd
