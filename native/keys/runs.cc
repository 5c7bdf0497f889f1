#include "keys/runs.h"

#include <errno.h>
#include <sys/uio.h>

#include <algorithm>

#include "io/arena.h"
#include "keys/wipe.h"

namespace sealbd {
namespace {

constexpr size_t kBlocksPerCheck = 64;

ConstSlot slot_at(std::span<const uint8_t> slots, size_t i) {
  return slots.subspan(i * kSlotBytes).first<kSlotBytes>();
}

PlainBlock block_at(std::span<uint8_t> blocks, size_t i) {
  return blocks.subspan(i * kBlockBytes).first<kBlockBytes>();
}

// Where readRun puts ciphertext: an arena for each thread, as large as one piece, so that it stays in the cache.
constexpr size_t kPieceBlocks = 64;

class Scratch {
 public:
  Scratch() : arena_(arena_map(kPieceBlocks * kSlotBytes)) {}
  ~Scratch() {
    if (arena_) arena_destroy(arena_->id);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::span<uint8_t> bytes() const { return arena_ ? arena_->bytes : std::span<uint8_t>{}; }

 private:
  std::optional<NewArena> arena_;
};

// Fills `into`, or says why not. With no_wait a part that is not in the page cache makes the call give up.
int64_t read_all(const FileRange& from, std::span<uint8_t> into) {
  int64_t offset = from.offset;
  while (!into.empty()) {
    const iovec piece{into.data(), into.size()};
    const ssize_t got = preadv2(from.fd, &piece, 1, offset, from.no_wait ? RWF_NOWAIT : 0);
    if (got == 0) return kRunShort;
    if (got < 0) {
      if (errno == EINTR) continue;
      // Some file systems know no RWF_NOWAIT; then the caller takes the way that may block.
      if (from.no_wait && (errno == EAGAIN || errno == EOPNOTSUPP)) return kRunWouldBlock;
      return kRunErrnoBase - errno;
    }
    into = into.subspan(static_cast<size_t>(got));
    offset += got;
  }
  return kRunOk;
}

}  // namespace

int64_t seal_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, const SlotMeta& first) {
  const size_t blocks = src.size() / kBlockBytes;
  SlotMeta meta = first;
  int64_t result = kRunOk;
  for (size_t i = 0; i < blocks; ++i) {
    if (i % kBlocksPerCheck == 0 && use.revoked()) {
      result = kRunRevoked;
      break;
    }
    seal_slot(with, use.key(), first_position + static_cast<uint32_t>(i), meta,
              src.subspan(i * kBlockBytes).first<kBlockBytes>(), dst.subspan(i * kSlotBytes).first<kSlotBytes>());
    meta.sequence += 1;
    meta.lba += 1;
  }
  scrub_stack();
  return result;
}

int64_t open_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, uint64_t lba) {
  const size_t blocks = src.size() / kSlotBytes;
  int64_t result = kRunOk;
  for (size_t i = 0; i < blocks; ++i) {
    if (i % kBlocksPerCheck == 0 && use.revoked()) {
      wipe(dst);
      result = kRunRevoked;
      break;
    }
    const ConstSlot slot = slot_at(src, i);
    const PlainBlock block = block_at(dst, i);
    const bool claimed = slot_is_data_of(slot, lba + i);
    if (claimed && open_slot(with, use.key(), first_position + static_cast<uint32_t>(i), slot, block)) continue;
    wipe(block);
    if (result == kRunOk) result = static_cast<int64_t>(i);
  }
  scrub_stack();
  return result;
}

int64_t scan_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, std::span<uint8_t> valid) {
  const size_t blocks = src.size() / kSlotBytes;
  int64_t result = kRunOk;
  for (size_t i = 0; i < blocks; ++i) {
    if (i % kBlocksPerCheck == 0 && use.revoked()) {
      wipe(dst);
      wipe(valid);
      result = kRunRevoked;
      break;
    }
    valid[i] = open_slot(with, use.key(), first_position + static_cast<uint32_t>(i), slot_at(src, i),
                         block_at(dst, i))
                   ? 1
                   : 0;
  }
  scrub_stack();
  return result;
}

KeyStatus read_run(const Kernel& with, SegmentKeyHandle handle, const FileRange& from, std::span<uint8_t> dst,
                   uint32_t first_position, uint64_t lba, int64_t& result) {
  thread_local Scratch scratch;
  if (scratch.bytes().empty()) {
    result = kRunErrnoBase - ENOMEM;
    return KeyStatus::ok;
  }
  const size_t blocks = dst.size() / kBlockBytes;
  result = kRunOk;
  for (size_t done = 0; done < blocks; done += kPieceBlocks) {
    const size_t count = std::min(kPieceBlocks, blocks - done);
    const auto slots = scratch.bytes().first(count * kSlotBytes);
    const int64_t offset = from.offset + static_cast<int64_t>(done * kSlotBytes);
    const int64_t read = read_all({from.fd, offset, from.no_wait}, slots);
    const SegmentKeyUse use(handle);
    if (use.status() == KeyStatus::stale) return KeyStatus::stale;
    if (use.status() == KeyStatus::revoked) {
      wipe(dst.first(done * kBlockBytes));
      result = kRunRevoked;
      return KeyStatus::ok;
    }
    if (read != kRunOk) {
      result = read;
      return KeyStatus::ok;
    }
    const int64_t opened = open_run(with, use, dst.subspan(done * kBlockBytes, count * kBlockBytes), slots,
                                    first_position + static_cast<uint32_t>(done), lba + done);
    if (opened == kRunRevoked) {
      wipe(dst.first(done * kBlockBytes));
      result = kRunRevoked;
      return KeyStatus::ok;
    }
    if (opened >= 0 && result == kRunOk) result = static_cast<int64_t>(done) + opened;
  }
  return KeyStatus::ok;
}

}  // namespace sealbd
