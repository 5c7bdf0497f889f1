// Memory for key material: locked into RAM, out of core dumps, empty in forked children, with an inaccessible page
// on either side. Those of the tables of keys are never given back: what they hold is wiped slot by slot, and they are
// used again. Those of secrets on their way (native/napi/secrets.cc) are.
// Core dumps of the process stay possible: an operator may need one, and neither these regions nor arenas are in it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sealbd {

struct SecureMemoryState {
  bool locked;   // false once a region is in use that mlock was refused for
  size_t bytes;  // of all regions, without their guard pages
};

// Whether memory that cannot be locked is no memory for keys, for every region mapped from now on. The process starts
// without this rule. One switch for the whole process, because the tables of keys are shared by all its threads.
void secure_memory_require_locked(bool required);

// Maps `bytes` (rounded up to pages) of zeroed memory. Null, and nothing left mapped, where the kernel refuses the
// mapping or one of the protections, mlock only where locking is required; else a refused mlock is remembered in
// `secure_memory_state`.
uint8_t* secure_map(size_t bytes);

// Wipes and gives back what secure_map(bytes) returned.
void secure_unmap(uint8_t* memory, size_t bytes);

SecureMemoryState secure_memory_state();

}  // namespace sealbd
