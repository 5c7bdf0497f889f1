#include "keys/key_slots.h"

#include <array>
#include <cstring>
#include <mutex>

#include "keys/scrub.h"
#include "keys/secure_memory.h"
#include "keys/segment_keys.h"
#include "keys/wipe.h"

namespace sealbd {
namespace {

// `mutex` guards everything but the use counts. It is not held while waiting for users, because users of a key
// (derivation, unwrapping) take it.
struct Table {
  std::mutex mutex;
  std::array<UseCount, kKeysMax> counts;
  std::array<uint32_t, kKeysMax> references{};  // 0: free
  std::array<bool, kKeysMax> closing{};         // last reference gone, not wiped yet
  uint8_t* memory = nullptr;
  size_t used = 0;
};

Table table;

size_t index_of(KeyHandle handle) { return handle % kKeysMax; }
uint64_t generation_of(KeyHandle handle) { return handle / kKeysMax; }
uint8_t* bytes_of(size_t index) { return table.memory + index * kKeyBytes; }

// Under the mutex.
bool is_live(KeyHandle handle) {
  const size_t index = index_of(handle);
  return table.references[index] > 0 &&
         table.counts[index].generation.load(std::memory_order_relaxed) == generation_of(handle);
}

// Under the mutex.
bool ensure_memory() {
  if (table.memory == nullptr) table.memory = secure_map(kKeysMax * kKeyBytes);
  return table.memory != nullptr;
}

}  // namespace

KeyStatus key_memory_prepare() {
  {
    const std::lock_guard lock(table.mutex);
    if (!ensure_memory()) return KeyStatus::memory;
  }
  return segment_key_memory_prepare();
}

KeyStatus key_create(const uint8_t* bytes, KeyHandle& out) {
  const ScrubOnExit scrubbed;
  const std::lock_guard lock(table.mutex);
  if (!ensure_memory()) return KeyStatus::memory;
  for (size_t index = 0; index < kKeysMax; ++index) {
    if (table.references[index] > 0 || table.closing[index]) continue;
    UseCount& count = table.counts[index];
    std::memcpy(bytes_of(index), bytes, kKeyBytes);
    // A new generation for each life: nobody who enters with an old handle can see these bytes.
    const uint64_t generation = count.generation.load(std::memory_order_relaxed) + 1;
    count.revoked.store(false, std::memory_order_seq_cst);
    count.generation.store(generation, std::memory_order_seq_cst);
    table.references[index] = 1;
    table.used += 1;
    out = generation * kKeysMax + index;
    return KeyStatus::ok;
  }
  return KeyStatus::memory;
}

KeyStatus key_retain(KeyHandle handle) {
  const std::lock_guard lock(table.mutex);
  if (!is_live(handle)) return KeyStatus::stale;
  const size_t index = index_of(handle);
  if (table.counts[index].revoked.load(std::memory_order_relaxed)) return KeyStatus::revoked;
  if (table.references[index] == UINT32_MAX) return KeyStatus::memory;
  table.references[index] += 1;
  return KeyStatus::ok;
}

KeyStatus key_release(KeyHandle handle) {
  const size_t index = index_of(handle);
  UseCount& count = table.counts[index];
  {
    const std::lock_guard lock(table.mutex);
    if (!is_live(handle)) return KeyStatus::stale;
    if (--table.references[index] > 0) return KeyStatus::ok;
    table.closing[index] = true;
    count.revoked.store(true, std::memory_order_seq_cst);
    count.generation.fetch_add(1, std::memory_order_seq_cst);
  }
  count.wait_until_unused();
  segment_keys_revoke(handle);
  const std::lock_guard lock(table.mutex);
  wipe(bytes_of(index), kKeyBytes);
  table.closing[index] = false;
  table.used -= 1;
  return KeyStatus::ok;
}

KeyStatus key_revoke(KeyHandle handle) {
  const size_t index = index_of(handle);
  UseCount& count = table.counts[index];
  {
    const std::lock_guard lock(table.mutex);
    if (!is_live(handle)) return KeyStatus::stale;
    // A reference of our own: the slot must not be freed and filled again while we wait.
    table.references[index] += 1;
    count.revoked.store(true, std::memory_order_seq_cst);
  }
  count.wait_until_unused();
  // From here on nobody can derive from the slot any more, so no segment key of it is missed.
  segment_keys_revoke(handle);
  {
    const std::lock_guard lock(table.mutex);
    wipe(bytes_of(index), kKeyBytes);
  }
  return key_release(handle);
}

KeyStatus key_state(KeyHandle handle) {
  const std::lock_guard lock(table.mutex);
  if (!is_live(handle)) return KeyStatus::stale;
  return table.counts[index_of(handle)].revoked.load(std::memory_order_relaxed) ? KeyStatus::revoked
                                                                                 : KeyStatus::ok;
}

size_t keys_used() {
  const std::lock_guard lock(table.mutex);
  return table.used;
}

KeyUse::KeyUse(KeyHandle handle) : status_(KeyStatus::stale) {
  UseCount& count = table.counts[index_of(handle)];
  status_ = count.enter(generation_of(handle));
  if (status_ != KeyStatus::ok) return;
  count_ = &count;
  // Entering read the generation that key_create stored after `memory` was set and the bytes were copied.
  bytes_ = bytes_of(index_of(handle));
}

KeyUse::~KeyUse() {
  if (count_ != nullptr) count_->leave();
}

}  // namespace sealbd
