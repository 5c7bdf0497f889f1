#include "io/arena.h"

#include <sched.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <mutex>

#include "keys/wipe.h"

namespace sealbd {
namespace {

// An id is generation * 2^16 + index. With five bits of generation a ref stays below 2^53, so that a JavaScript
// number holds it exactly, and a ref of a freed arena rarely names its successor.
constexpr uint32_t kIndexBits = 16;
constexpr uint32_t kIndexes = 1U << kIndexBits;
constexpr uint32_t kGenerations = 32;
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

// `id` is 0 while the entry is free. It is stored last when an arena is published and cleared first when it goes,
// so that whoever reads the id (acquire) sees the base and size that belong to it.
struct Entry {
  std::atomic<uint32_t> id{0};
  std::atomic<uint32_t> pins{0};
  std::atomic<uint8_t*> base{nullptr};
  std::atomic<size_t> size{0};
};

struct Table {
  std::mutex mutex;  // guards creation and removal; look-ups take no lock
  std::array<uint8_t, kIndexes> generation{};
  uint32_t next = 1;  // index 0 is never used: ref 0 names nothing
  ArenaStats stats{};
};

std::array<Entry, kIndexes> entries;
Table table;

uint8_t* map_aligned(size_t size) {
  const size_t align = size >= kHugePage ? kHugePage : kPage;
  const size_t span = size + (align > kPage ? align : 0);
  void* const raw = mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t base = (start + align - 1) & ~(align - 1);
  if (base > start) munmap(raw, base - start);
  const uintptr_t end = start + span;
  if (end > base + size) munmap(reinterpret_cast<void*>(base + size), end - base - size);
  auto* const bytes = reinterpret_cast<uint8_t*>(base);
  if (madvise(bytes, size, MADV_DONTDUMP) != 0 || madvise(bytes, size, MADV_DONTFORK) != 0) {
    munmap(bytes, size);
    return nullptr;
  }
  // Only a hint: a kernel without transparent huge pages serves small ones.
  if (align == kHugePage) (void)madvise(bytes, size, MADV_HUGEPAGE);
  return bytes;
}

struct Ref {
  uint32_t id;
  size_t offset;
};

std::optional<Ref> decode(double ref) {
  if (!(ref >= 0 && ref < 9007199254740992.0)) return std::nullopt;
  const auto value = static_cast<uint64_t>(ref);
  if (static_cast<double>(value) != ref) return std::nullopt;
  return Ref{static_cast<uint32_t>(value >> 32), static_cast<size_t>(value & 0xffffffffU)};
}

std::optional<std::span<uint8_t>> resolve(const Ref& ref, size_t len) {
  const Entry& entry = entries[ref.id & (kIndexes - 1)];
  if (ref.id == 0 || entry.id.load(std::memory_order_seq_cst) != ref.id) return std::nullopt;
  const size_t size = entry.size.load(std::memory_order_relaxed);
  if (ref.offset > size || len > size - ref.offset) return std::nullopt;
  return std::span(entry.base.load(std::memory_order_relaxed) + ref.offset, len);
}

}  // namespace

std::optional<NewArena> arena_map(size_t size) {
  if (size == 0 || size > (size_t{1} << 32)) return std::nullopt;
  const size_t rounded = (size + kPage - 1) & ~(kPage - 1);
  uint8_t* const base = map_aligned(rounded);
  if (base == nullptr) return std::nullopt;
  const std::lock_guard lock(table.mutex);
  for (uint32_t tried = 0; tried < kIndexes; ++tried) {
    const uint32_t index = table.next;
    table.next = index + 1 < kIndexes ? index + 1 : 1;
    Entry& entry = entries[index];
    if (entry.base.load(std::memory_order_relaxed) != nullptr) continue;
    uint8_t& generation = table.generation[index];
    const uint32_t id = generation * kIndexes + index;
    generation = static_cast<uint8_t>((generation + 1) % kGenerations);
    entry.base.store(base, std::memory_order_relaxed);
    entry.size.store(size, std::memory_order_relaxed);
    entry.id.store(id, std::memory_order_release);
    table.stats.arenas += 1;
    table.stats.bytes += size;
    return NewArena{id, {base, size}};
  }
  munmap(base, rounded);
  return std::nullopt;
}

bool arena_destroy(uint32_t id) {
  Entry& entry = entries[id & (kIndexes - 1)];
  uint32_t expected = id;
  // Sequentially consistent, like the pin: either the pin is counted before this, and we wait for it, or the pin
  // reads the cleared id and gives up.
  if (id == 0 || !entry.id.compare_exchange_strong(expected, 0, std::memory_order_seq_cst)) return false;
  while (entry.pins.load(std::memory_order_seq_cst) != 0) sched_yield();
  uint8_t* const base = entry.base.load(std::memory_order_relaxed);
  const size_t size = entry.size.load(std::memory_order_relaxed);
  wipe(base, size);
  munmap(base, (size + kPage - 1) & ~(kPage - 1));
  const std::lock_guard lock(table.mutex);
  entry.base.store(nullptr, std::memory_order_relaxed);
  entry.size.store(0, std::memory_order_relaxed);
  table.stats.arenas -= 1;
  table.stats.bytes -= size;
  return true;
}

ArenaStats arena_stats() {
  const std::lock_guard lock(table.mutex);
  return table.stats;
}

std::optional<std::span<uint8_t>> arena_span(double ref, size_t len) {
  const auto decoded = decode(ref);
  return decoded ? resolve(*decoded, len) : std::nullopt;
}

ArenaPin::ArenaPin(double ref, size_t len) {
  const auto decoded = decode(ref);
  if (!decoded) return;
  index_ = decoded->id & (kIndexes - 1);
  entries[index_].pins.fetch_add(1, std::memory_order_seq_cst);
  const auto found = resolve(*decoded, len);
  if (!found) {
    entries[index_].pins.fetch_sub(1, std::memory_order_release);
    return;
  }
  bytes_ = *found;
  pinned_ = true;
}

ArenaPin::~ArenaPin() {
  if (pinned_) entries[index_].pins.fetch_sub(1, std::memory_order_release);
}

}  // namespace sealbd
