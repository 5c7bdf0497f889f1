#include "keys/segment_keys.h"

#include <array>
#include <cstring>
#include <mutex>
#include <string_view>

#include "keys/scrub.h"
#include "keys/secure_memory.h"
#include "keys/wipe.h"

namespace sealbd {
namespace {

constexpr size_t kChunkKeys = 1024;
constexpr size_t kChunks = kSegmentKeysMax / kChunkKeys;
constexpr KeyHandle kNoParent = 0;  // the generation of a live key is odd, so no key has this handle

// `mutex` guards everything but the use counts. Jobs never take it, so revoking may hold it while it waits for them.
struct Table {
  std::mutex mutex;
  std::array<UseCount, kSegmentKeysMax> counts;
  std::array<KeyHandle, kSegmentKeysMax> parents{};
  std::array<bool, kSegmentKeysMax> taken{};
  std::array<std::atomic<SegmentKey*>, kChunks> chunks{};
  size_t mapped = 0;  // keys in the chunks that exist
  size_t next = 0;    // where to look for a free one
  size_t used = 0;
};

Table table;

SegmentKey& key_at(size_t index) {
  return table.chunks[index / kChunkKeys].load(std::memory_order_acquire)[index % kChunkKeys];
}

size_t index_of(SegmentKeyHandle handle) { return handle % kSegmentKeysMax; }
uint64_t generation_of(SegmentKeyHandle handle) { return handle / kSegmentKeysMax; }

// Under the mutex.
bool add_chunk() {
  if (table.mapped == kSegmentKeysMax) return false;
  auto* const chunk = reinterpret_cast<SegmentKey*>(secure_map(kChunkKeys * sizeof(SegmentKey)));
  if (chunk == nullptr) return false;
  table.chunks[table.mapped / kChunkKeys].store(chunk, std::memory_order_release);
  table.next = table.mapped;
  table.mapped += kChunkKeys;
  return true;
}

// Under the mutex: the index of a free key, growing the table where there is none.
std::optional<size_t> find_free() {
  if (table.used == table.mapped && !add_chunk()) return std::nullopt;
  while (table.taken[table.next]) table.next = (table.next + 1) % table.mapped;
  return table.next;
}

std::span<const uint8_t> bytes_of(std::string_view label) {
  return {reinterpret_cast<const uint8_t*>(label.data()), label.size()};
}

void expand(const Kernel& with, const uint8_t* parent, Suite suite, std::span<const uint8_t> context,
            SegmentKey& out) {
  Secret<Key> working;
  out.suite = suite;
  if (suite == Suite::none) {
    std::memcpy(out.salt, context.last<kSaltBytes>().data(), kSaltBytes);
    return;
  }
  derive_key(with, parent, bytes_of("sealbd/v1/segment-data"), context, working.value.data());
  if (suite == Suite::gcm) {
    with.expand(working.value.data(), out.gcm.aes);
    with.gcm_init(out.gcm);
  } else {
    with.expand(working.value.data(), out.ctr.data);
    derive_key(with, parent, bytes_of("sealbd/v1/segment-slot"), context, working.value.data());
    cmac_init(with, working.value.data(), out.ctr.slot);
  }
}

}  // namespace

KeyStatus segment_key_memory_prepare() {
  const std::lock_guard lock(table.mutex);
  return table.mapped > 0 || add_chunk() ? KeyStatus::ok : KeyStatus::memory;
}

KeyStatus segment_key_derive(const Kernel& with, std::optional<KeyHandle> parent, Suite suite,
                             std::span<const uint8_t> context, SegmentKeyHandle& out) {
  const ScrubOnExit scrubbed;
  std::optional<KeyUse> use;
  if (parent) {
    use.emplace(*parent);
    if (use->status() != KeyStatus::ok) return use->status();
  }
  const std::lock_guard lock(table.mutex);
  const auto index = find_free();
  if (!index) return KeyStatus::memory;
  expand(with, use ? use->bytes() : nullptr, suite, context, key_at(*index));
  UseCount& count = table.counts[*index];
  const uint64_t generation = count.generation.load(std::memory_order_relaxed) + 1;
  count.revoked.store(false, std::memory_order_seq_cst);
  count.generation.store(generation, std::memory_order_seq_cst);
  table.parents[*index] = parent.value_or(kNoParent);
  table.taken[*index] = true;
  table.used += 1;
  out = generation * kSegmentKeysMax + *index;
  return KeyStatus::ok;
}

KeyStatus segment_key_release(SegmentKeyHandle handle) {
  const size_t index = index_of(handle);
  UseCount& count = table.counts[index];
  // The exchange makes one of two concurrent releases the owner of the end. The generation that it leaves behind is
  // even: as a handle it names no key, though the table holds this one until its users are gone.
  uint64_t expected = generation_of(handle);
  if (expected % 2 == 0) return KeyStatus::stale;
  {
    const std::lock_guard lock(table.mutex);
    if (!table.taken[index] ||
        !count.generation.compare_exchange_strong(expected, expected + 1, std::memory_order_seq_cst)) {
      return KeyStatus::stale;
    }
  }
  count.wait_until_unused();
  const std::lock_guard lock(table.mutex);
  wipe(&key_at(index), sizeof(SegmentKey));
  table.parents[index] = kNoParent;
  table.taken[index] = false;
  table.used -= 1;
  return KeyStatus::ok;
}

void segment_keys_revoke(KeyHandle parent) {
  const std::lock_guard lock(table.mutex);
  // All flags first, so that the jobs end side by side.
  for (size_t i = 0; i < table.mapped; ++i) {
    if (table.taken[i] && table.parents[i] == parent) table.counts[i].revoked.store(true, std::memory_order_seq_cst);
  }
  for (size_t i = 0; i < table.mapped; ++i) {
    if (!table.taken[i] || table.parents[i] != parent) continue;
    table.counts[i].wait_until_unused();
    wipe(&key_at(i), sizeof(SegmentKey));
  }
}

size_t segment_keys_used() {
  const std::lock_guard lock(table.mutex);
  return table.used;
}

SegmentKeyUse::SegmentKeyUse(SegmentKeyHandle handle) : status_(KeyStatus::stale) {
  UseCount& count = table.counts[index_of(handle)];
  status_ = count.enter(generation_of(handle));
  if (status_ != KeyStatus::ok) return;
  count_ = &count;
  key_ = &key_at(index_of(handle));
}

SegmentKeyUse::~SegmentKeyUse() {
  if (count_ != nullptr) count_->leave();
}

}  // namespace sealbd
