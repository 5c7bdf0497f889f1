// The process-wide table of segment keys: what one segment's slots are sealed and opened with, expanded and ready,
// in the same kind of memory as the keys they come from. It grows in guarded chunks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "aes/cmac.h"
#include "aes/kernel.h"
#include "keys/key_slots.h"
#include "keys/use_count.h"

namespace sealbd {

using SegmentKeyHandle = uint64_t;  // generation * kSegmentKeysMax + index; below 2^53

constexpr size_t kSegmentKeysMax = 65536;
constexpr size_t kSegmentContextBytes = 57;  // docs/FORMAT.md: suite, origin uuid, segment id, salt
constexpr size_t kSaltBytes = 32;

enum class Suite : uint8_t { none = 0, ctr = 1, gcm = 2 };

struct CtrSuiteKey {
  AesKey data;
  CmacKey slot;
};

// `suite` says which member of the union is in use; under `none` it is the salt, which is no secret.
struct alignas(64) SegmentKey {
  union {
    GcmKey gcm;
    CtrSuiteKey ctr;
    uint8_t salt[kSaltBytes];
  };
  Suite suite;
};

// Maps the first chunk of the table where that has not happened yet.
KeyStatus segment_key_memory_prepare();

// `parent` is absent for `none` alone. The context has kSegmentContextBytes and starts with the suite.
KeyStatus segment_key_derive(const Kernel& with, std::optional<KeyHandle> parent, Suite suite,
                             std::span<const uint8_t> context, SegmentKeyHandle& out);

// Waits for jobs that use it, then wipes it. Releasing a revoked one is the way to give its slot back.
KeyStatus segment_key_release(SegmentKeyHandle handle);

// Revokes all that were derived from `parent`, waits for their jobs to leave, wipes them.
void segment_keys_revoke(KeyHandle parent);

size_t segment_keys_used();

// Keeps a segment key in place while it lives. A long job asks `revoked` every 64 blocks and leaves if so.
class SegmentKeyUse {
 public:
  explicit SegmentKeyUse(SegmentKeyHandle handle);
  ~SegmentKeyUse();
  SegmentKeyUse(const SegmentKeyUse&) = delete;
  SegmentKeyUse& operator=(const SegmentKeyUse&) = delete;

  KeyStatus status() const { return status_; }
  const SegmentKey& key() const { return *key_; }
  bool revoked() const { return count_->revoked.load(std::memory_order_relaxed); }

 private:
  UseCount* count_ = nullptr;
  const SegmentKey* key_ = nullptr;
  KeyStatus status_;
};

}  // namespace sealbd
