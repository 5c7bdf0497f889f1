// The process-wide table of keys: 256 bits each, in secure memory, named by handles that carry a generation.
//
// States of a slot: free -> live (create) -> revoked (revoke) -> free (last release), or live -> free directly.
// A handle of a slot that was freed is stale for ever: generations are not used twice. Revoking, and the last
// release, also revoke and wipe every segment key derived from the slot.
#pragma once

#include <cstdint>

#include "aes/kernel.h"
#include "keys/use_count.h"

namespace sealbd {

using KeyHandle = uint64_t;  // generation * kKeysMax + index; below 2^53

constexpr size_t kKeysMax = 4096;

// Maps the memory of this table, and the first of that of the segment keys, where that has not happened yet: whether
// the kernel lets it be locked is then known before the first key exists.
KeyStatus key_memory_prepare();

// Copies 32 bytes into a new slot with one reference.
KeyStatus key_create(const uint8_t* bytes, KeyHandle& out);

KeyStatus key_retain(KeyHandle handle);
KeyStatus key_release(KeyHandle handle);

// Returns when the bytes of the slot and of its segment keys are gone. Revoking twice is harmless.
KeyStatus key_revoke(KeyHandle handle);

// ok, revoked or stale.
KeyStatus key_state(KeyHandle handle);

size_t keys_used();

// Keeps the bytes of a key in place while it lives.
class KeyUse {
 public:
  explicit KeyUse(KeyHandle handle);
  ~KeyUse();
  KeyUse(const KeyUse&) = delete;
  KeyUse& operator=(const KeyUse&) = delete;

  KeyStatus status() const { return status_; }
  const uint8_t* bytes() const { return bytes_; }

 private:
  UseCount* count_ = nullptr;
  const uint8_t* bytes_ = nullptr;
  KeyStatus status_;
};

}  // namespace sealbd
