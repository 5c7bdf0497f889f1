// One slot of a segment (docs/FORMAT.md): 4096 bytes of block, 16 of meta, 16 of tag.
//
//   4096  7  sequence          4108  1  kind
//   4103  5  lba               4109  3  lag          4112  16  tag
#pragma once

#include <cstdint>
#include <span>

#include "aes/kernel.h"
#include "keys/segment_keys.h"

namespace sealbd {

constexpr size_t kBlockBytes = 4096;
constexpr size_t kMetaBytes = 16;
constexpr size_t kSlotBytes = kBlockBytes + kMetaBytes + kTagBytes;
constexpr uint32_t kPositions = 16384;

enum class SlotKind : uint8_t { data = 1, extents = 2 };

struct SlotMeta {
  uint64_t sequence;
  uint64_t lba;
  SlotKind kind;
  int64_t durable;  // the last sequence known durable, or -1: no claim
};

using Slot = std::span<uint8_t, kSlotBytes>;
using ConstSlot = std::span<const uint8_t, kSlotBytes>;
using PlainBlock = std::span<uint8_t, kBlockBytes>;
using ConstPlainBlock = std::span<const uint8_t, kBlockBytes>;

// Seals `block` for `position`. A position is sealed once in the life of a key: the caller counts.
void seal_slot(const Kernel& with, const SegmentKey& key, uint32_t position, const SlotMeta& meta,
               ConstPlainBlock block, Slot slot);

// True and the plaintext in `block`, or false and `block` all zeros.
bool open_slot(const Kernel& with, const SegmentKey& key, uint32_t position, ConstSlot slot, PlainBlock block);

// What an authentic slot claims.
bool slot_is_data_of(ConstSlot slot, uint64_t lba);

}  // namespace sealbd
