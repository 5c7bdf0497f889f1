// Many threads use, derive, release and revoke the same keys: for the thread sanitizer, and for whoever counts.
#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "io/arena.h"
#include "keys/runs.h"
#include "test/check.h"

namespace sealbd::test {
namespace {

constexpr size_t kBlocks = 130;

std::array<uint8_t, kSegmentContextBytes> gcm_context() {
  std::array<uint8_t, kSegmentContextBytes> context{};
  context[0] = static_cast<uint8_t>(Suite::gcm);
  return context;
}

// Derives, seals, opens and releases until the key is gone. A run under way may end as revoked; what it returns as
// done must be right.
void work(KeyHandle parent, std::atomic<uint64_t>& finished) {
  const std::vector<uint8_t> plain(kBlocks * kBlockBytes, 0x3c);
  std::vector<uint8_t> slots(kBlocks * kSlotBytes);
  std::vector<uint8_t> back(plain.size());
  for (;;) {
    SegmentKeyHandle handle = 0;
    const KeyStatus derived = segment_key_derive(kernel(), parent, Suite::gcm, gcm_context(), handle);
    if (derived != KeyStatus::ok) {
      CHECK(derived == KeyStatus::revoked || derived == KeyStatus::stale);
      return;
    }
    {
      const SegmentKeyUse use(handle);
      if (use.status() == KeyStatus::ok) {
        const SlotMeta meta{1, 0, SlotKind::data, -1};
        const int64_t sealed = seal_run(kernel(), use, slots, plain, 0, meta);
        const int64_t opened = sealed == kRunOk ? open_run(kernel(), use, back, slots, 0, 0) : kRunRevoked;
        CHECK(sealed == kRunOk || sealed == kRunRevoked);
        CHECK(opened == kRunOk || opened == kRunRevoked);
        if (opened == kRunOk) {
          CHECK(back == plain);
          finished.fetch_add(1);
        }
      } else {
        CHECK(use.status() == KeyStatus::revoked);
      }
    }
    CHECK(segment_key_release(handle) == KeyStatus::ok);
  }
}

}  // namespace

void threads_and_revocation() {
  const size_t keys_before = keys_used();
  uint64_t total = 0;
  for (int round = 0; round < 30; ++round) {
    Key bytes;
    bytes.fill(static_cast<uint8_t>(round));
    KeyHandle key = 0;
    CHECK(key_create(bytes.data(), key) == KeyStatus::ok);
    std::atomic<uint64_t> finished{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) threads.emplace_back([&] { work(key, finished); });
    while (finished.load() < 5) std::this_thread::yield();
    if (round % 3 == 0) {
      CHECK(key_release(key) == KeyStatus::ok);
    } else {
      // Two threads revoke at once; both return with the bytes gone.
      std::thread second([&] { CHECK(key_revoke(key) == KeyStatus::ok); });
      CHECK(key_revoke(key) == KeyStatus::ok);
      second.join();
      CHECK(key_release(key) == KeyStatus::ok);
    }
    for (std::thread& thread : threads) thread.join();
    total += finished.load();
    CHECK(segment_keys_used() == 0);
  }
  CHECK(total >= 150);
  CHECK(keys_used() == keys_before);
}

// A release waits for a user; meanwhile the slot is taken still, under a generation that no handle has.
void a_released_handle_stays_stale() {
  SegmentKeyHandle handle = 0;
  const std::array<uint8_t, kSegmentContextBytes> context{};
  CHECK(segment_key_derive(kernel(), std::nullopt, Suite::none, context, handle) == KeyStatus::ok);
  std::optional<SegmentKeyUse> use(std::in_place, handle);
  CHECK(use->status() == KeyStatus::ok);
  std::thread release([&] { CHECK(segment_key_release(handle) == KeyStatus::ok); });
  while (SegmentKeyUse(handle).status() != KeyStatus::stale) std::this_thread::yield();
  CHECK(segment_key_release(handle) == KeyStatus::stale);
  CHECK(segment_key_release(handle + kSegmentKeysMax) == KeyStatus::stale);
  CHECK(segment_keys_used() == 1);
  use.reset();
  release.join();
  CHECK(segment_keys_used() == 0);
}

void threads_and_arenas() {
  const size_t arenas_before = arena_stats().arenas;
  for (int round = 0; round < 200; ++round) {
    const auto arena = arena_map(65536);
    CHECK(arena.has_value());
    const double ref = static_cast<double>(arena->id) * 4294967296.0;
    std::atomic<bool> started{false};
    std::thread user([&] {
      for (;;) {
        const ArenaPin pin(ref + 4096, 4096);
        started.store(true);
        if (!pin) return;
        pin.bytes()[17] = static_cast<uint8_t>(pin.bytes()[17] + 1);
      }
    });
    while (!started.load()) std::this_thread::yield();
    CHECK(arena_destroy(arena->id));
    user.join();
    CHECK(!arena_destroy(arena->id));
    CHECK(!arena_span(ref, 1));
  }
  CHECK(arena_stats().arenas == arenas_before);
}

}  // namespace sealbd::test
