// Arenas: page-aligned memory outside the JavaScript heap, in huge pages where the kernel has them, out of core
// dumps and out of forked children. An arena has a process-wide id; a `ref` (id * 2^32 + offset) is a JavaScript
// number that names one of its bytes from any thread.
//
// Freeing: `arena_destroy` makes the id invalid, waits until no ArenaPin holds the arena, then wipes and unmaps.
// Code that may run on another thread than the owner holds a pin while it touches the bytes. Code on the owner's
// thread may use `arena_span`, whose result is good until the owner frees the arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

namespace sealbd {

struct ArenaStats {
  size_t arenas;
  size_t bytes;
};

struct NewArena {
  uint32_t id;
  std::span<uint8_t> bytes;
};

// Maps a zeroed arena. Nothing where the kernel refuses the memory or 65535 arenas exist.
std::optional<NewArena> arena_map(size_t size);

// False where `id` names no live arena.
bool arena_destroy(uint32_t id);

ArenaStats arena_stats();

// The bytes [ref, ref + len), or nothing where they are not all inside one live arena.
std::optional<std::span<uint8_t>> arena_span(double ref, size_t len);

// The same, and keeps the arena mapped for as long as the pin lives.
class ArenaPin {
 public:
  ArenaPin(double ref, size_t len);
  ~ArenaPin();
  ArenaPin(const ArenaPin&) = delete;
  ArenaPin& operator=(const ArenaPin&) = delete;

  explicit operator bool() const { return pinned_; }
  std::span<uint8_t> bytes() const { return bytes_; }

 private:
  std::span<uint8_t> bytes_;
  uint32_t index_ = 0;
  bool pinned_ = false;
};

}  // namespace sealbd
