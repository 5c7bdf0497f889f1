// How a slot of key material is used by many threads and wiped by one.
//
// A user counts itself in, then checks that the slot is still the one that its handle names and not revoked; if
// not, it counts itself out and goes away. Who wants to wipe first changes the generation or sets `revoked`, then
// waits for the count to be zero, then wipes. All of these are sequentially consistent, so there is one order of
// them: either the user's count comes before the wiper's look at it, and the wiper waits; or the wiper's change
// comes before the user's check, and the user goes away. Counting out is a release that the wiper's look acquires:
// the wipe comes after everything the user did. No user takes a lock.
#pragma once

#include <sched.h>
#include <time.h>

#include <atomic>
#include <cstdint>

namespace sealbd {

enum class KeyStatus { ok, revoked, stale, memory };

// On a cache line of its own: jobs of different threads use neighbouring slots.
struct alignas(64) UseCount {
  std::atomic<uint64_t> generation{0};  // odd while the slot is live, even while it is free
  std::atomic<uint32_t> users{0};
  std::atomic<bool> revoked{false};

  // On `ok` the caller must `leave`.
  KeyStatus enter(uint64_t expected_generation) {
    users.fetch_add(1, std::memory_order_seq_cst);
    KeyStatus status = KeyStatus::ok;
    const bool live = expected_generation % 2 == 1;
    if (!live || generation.load(std::memory_order_seq_cst) != expected_generation) {
      status = KeyStatus::stale;
    } else if (revoked.load(std::memory_order_seq_cst)) {
      status = KeyStatus::revoked;
    }
    if (status != KeyStatus::ok) leave();
    return status;
  }

  void leave() { users.fetch_sub(1, std::memory_order_release); }

  // Uses are short (a job looks at `revoked` every 64 blocks), so this polls.
  void wait_until_unused() const {
    for (unsigned tries = 0; users.load(std::memory_order_seq_cst) != 0; ++tries) {
      if (tries < 64) {
        sched_yield();
      } else {
        const timespec pause{0, 50'000};
        nanosleep(&pause, nullptr);
      }
    }
  }
};

}  // namespace sealbd
