// Runs: consecutive slots of one segment, sealed or opened by one call on the thread of the caller.
#pragma once

#include <cstdint>
#include <span>

#include "keys/segment_keys.h"
#include "keys/slot.h"

namespace sealbd {

// Results, as src/native/addon.ts names them. A value >= 0 is the index of the first block that failed.
constexpr int64_t kRunOk = -1;
constexpr int64_t kRunWouldBlock = -2;
constexpr int64_t kRunRevoked = -3;
constexpr int64_t kRunErrnoBase = -1000;

// `src` holds whole blocks, `dst` as many slots. Block i is sealed for first_position + i, with lba + i and
// sequence + i. On kRunRevoked some slots may have been written: they are valid, and their positions are spent.
int64_t seal_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, const SlotMeta& first);

// `src` holds whole slots, `dst` as many blocks. Slot i must be authentic data of lba + i; blocks that fail are
// zeroed, the others are opened all the same. On kRunRevoked all of `dst` is zeroed.
int64_t open_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, uint64_t lba);

// Every authentic slot counts, whatever it claims: valid[i] is 1 or 0.
int64_t scan_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, std::span<uint8_t> valid);

struct FileRange {
  int fd;
  int64_t offset;
  bool no_wait;
};

// Like open_run, from a file: a block that is not wholly there, or cannot be read, is one that failed, and those before
// it are opened all the same. An errno is the result only where it concerns the first block of the run. Blocks of `dst`
// that were not opened are zeroed, except with kRunWouldBlock. The key is not held while the disk is waited for.
// KeyStatus::stale is the only status besides ok: a revoked key is the result kRunRevoked.
KeyStatus read_run(const Kernel& with, SegmentKeyHandle handle, const FileRange& from, std::span<uint8_t> dst,
                   uint32_t first_position, uint64_t lba, int64_t& result);

}  // namespace sealbd
