#include "keys/runs.h"

#include <errno.h>
#include <sys/uio.h>

#include <algorithm>

#include "io/arena.h"
#include "keys/scrub.h"
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

struct ReadResult {
  size_t bytes;    // that were read
  int64_t status;  // kRunOk up to the end of the file too
};

// Fills `into` as far as the file can be read. With no_wait a part that is not in the page cache makes the call give up.
ReadResult read_all(const FileRange& from, std::span<uint8_t> into) {
  size_t done = 0;
  while (done < into.size()) {
    const iovec piece{into.data() + done, into.size() - done};
    const off_t offset = from.offset + static_cast<off_t>(done);
    const ssize_t got = preadv2(from.fd, &piece, 1, offset, from.no_wait ? RWF_NOWAIT : 0);
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (got == 0) {
      // Linux 5.9 and 5.10 may answer 0 to RWF_NOWAIT before the end of the file: only a read that may wait knows.
      return {done, from.no_wait ? kRunWouldBlock : kRunOk};
    } else if (errno != EINTR) {
      // Some file systems know no RWF_NOWAIT; then the caller takes the way that may block.
      const bool would_block = from.no_wait && (errno == EAGAIN || errno == EOPNOTSUPP);
      return {done, would_block ? kRunWouldBlock : kRunErrnoBase - errno};
    }
  }
  return {done, kRunOk};
}

}  // namespace

int64_t seal_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, const SlotMeta& first) {
  const ScrubOnExit scrubbed;
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
  return result;
}

int64_t open_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, uint64_t lba) {
  const ScrubOnExit scrubbed;
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
  return result;
}

int64_t scan_run(const Kernel& with, const SegmentKeyUse& use, std::span<uint8_t> dst, std::span<const uint8_t> src,
                 uint32_t first_position, std::span<uint8_t> valid) {
  const ScrubOnExit scrubbed;
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
  return result;
}

KeyStatus read_run(const Kernel& with, SegmentKeyHandle handle, const FileRange& from, std::span<uint8_t> dst,
                   uint32_t first_position, uint64_t lba, int64_t& result) {
  thread_local Scratch scratch;
  const size_t blocks = dst.size() / kBlockBytes;
  int64_t failed = kRunOk;  // or the index of the first block that did
  size_t done = 0;
  // What is not opened is zeroed: a caller that looks finds nothing of an earlier run.
  const auto end_with = [&](int64_t status, size_t kept) {
    wipe(dst.subspan(kept * kBlockBytes));
    result = status;
    return KeyStatus::ok;
  };
  if (scratch.bytes().empty()) return end_with(kRunErrnoBase - ENOMEM, 0);
  while (done < blocks) {
    const size_t count = std::min(kPieceBlocks, blocks - done);
    const auto slots = scratch.bytes().first(count * kSlotBytes);
    const int64_t offset = from.offset + static_cast<int64_t>(done * kSlotBytes);
    const ReadResult read = read_all({from.fd, offset, from.no_wait}, slots);
    const SegmentKeyUse use(handle);
    if (use.status() == KeyStatus::stale) return KeyStatus::stale;
    if (use.status() == KeyStatus::revoked) return end_with(kRunRevoked, 0);
    if (read.status == kRunWouldBlock) {
      // The caller reads all of it again, so zeroing would be work for nothing.
      result = kRunWouldBlock;
      return KeyStatus::ok;
    }
    const size_t whole = read.bytes / kSlotBytes;
    if (read.status != kRunOk && done + whole == 0) return end_with(read.status, 0);
    const int64_t opened =
        open_run(with, use, dst.subspan(done * kBlockBytes, whole * kBlockBytes), slots.first(whole * kSlotBytes),
                 first_position + static_cast<uint32_t>(done), lba + done);
    if (opened == kRunRevoked) return end_with(kRunRevoked, 0);
    if (opened >= 0 && failed == kRunOk) failed = static_cast<int64_t>(done) + opened;
    done += whole;
    // The file ends here, or cannot be read further: the next block is the first that is not wholly there.
    if (whole < count) return end_with(failed != kRunOk ? failed : static_cast<int64_t>(done), done);
  }
  result = failed;
  return KeyStatus::ok;
}

}  // namespace sealbd
