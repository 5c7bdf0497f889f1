// sealRun, openRun, readRun, readRuns, scanRun.
#include "keys/runs.h"

#include <napi.h>

#include "io/arena.h"
#include "napi/args.h"
#include "napi/key_args.h"
#include "napi/registry.h"

namespace sealbd {
namespace {

constexpr int64_t kLbaMax = (int64_t{1} << 40) - 1;
constexpr auto kSequenceMax = static_cast<int64_t>(kMaxSafeInteger);

struct Range {
  size_t blocks;
  uint32_t position;
};

// `blocks` slots from `position` on, inside one segment.
Range range_of(Napi::Env env, int64_t blocks, int64_t position) {
  if (position + blocks > kPositions) throw_invalid(env, "position + blocks must be at most 16384");
  return {static_cast<size_t>(blocks), static_cast<uint32_t>(position)};
}

Range range_args(const Napi::CallbackInfo& info, size_t blocks_at, size_t position_at) {
  const int64_t blocks = int_arg(info, blocks_at, "blocks", 1, kPositions);
  return range_of(info.Env(), blocks, int_arg(info, position_at, "position", 0, kPositions - 1));
}

uint64_t lba_of(Napi::Env env, double number, size_t blocks) {
  const int64_t lba = int_of(env, number, "lba", 0, kLbaMax);
  if (lba + static_cast<int64_t>(blocks) - 1 > kLbaMax) throw_invalid(env, "lba + blocks must be at most 2^40");
  return static_cast<uint64_t>(lba);
}

uint64_t lba_arg(const Napi::CallbackInfo& info, size_t i, size_t blocks) {
  return lba_of(info.Env(), number_arg(info, i, "lba"), blocks);
}

// The bytes behind a ref, kept mapped while the pin lives.
std::span<uint8_t> pinned_bytes(const Napi::CallbackInfo& info, const ArenaPin& pin, const char* name) {
  if (!pin) throw_invalid(info.Env(), std::string(name) + " must name bytes inside one arena");
  return pin.bytes();
}

void require_apart(const Napi::CallbackInfo& info, std::span<const uint8_t> a, std::span<const uint8_t> b) {
  const auto at_a = reinterpret_cast<uintptr_t>(a.data());
  const auto at_b = reinterpret_cast<uintptr_t>(b.data());
  if (at_a < at_b + b.size() && at_b < at_a + a.size()) throw_invalid(info.Env(), "src and dst must not overlap");
}

// False where the key is revoked, which is a result; a stale handle is an error.
bool usable(const Napi::CallbackInfo& info, const SegmentKeyUse& use) {
  if (use.status() == KeyStatus::revoked) return false;
  require_ok(info.Env(), use.status());
  return true;
}

Napi::Value result_of(const Napi::CallbackInfo& info, int64_t result) {
  return Napi::Number::New(info.Env(), static_cast<double>(result));
}

SlotMeta meta_args(const Napi::CallbackInfo& info, size_t blocks) {
  const auto count = static_cast<int64_t>(blocks);
  const auto kind = static_cast<SlotKind>(int_arg(info, 8, "kind", 1, 2));
  const uint64_t lba = lba_arg(info, 5, blocks);
  if (kind == SlotKind::extents && (lba != 0 || blocks != 1)) {
    throw_invalid(info.Env(), "a slot of extents has lba 0 and is sealed alone");
  }
  const int64_t sequence = int_arg(info, 6, "sequence", 0, kSequenceMax);
  if (sequence > kSequenceMax - (count - 1)) throw_invalid(info.Env(), "sequence + blocks must be at most 2^53");
  const int64_t durable = int_arg(info, 7, "durable", -1, sequence);
  return {static_cast<uint64_t>(sequence), lba, kind, durable};
}

Napi::Value seal(const Napi::CallbackInfo& info) {
  const SegmentKeyHandle handle = handle_arg(info, 0, "segmentKey");
  const auto [blocks, position] = range_args(info, 3, 4);
  const SlotMeta meta = meta_args(info, blocks);
  const ArenaPin dst_pin(number_arg(info, 1, "dst"), blocks * kSlotBytes);
  const ArenaPin src_pin(number_arg(info, 2, "src"), blocks * kBlockBytes);
  const auto dst = pinned_bytes(info, dst_pin, "dst");
  const auto src = pinned_bytes(info, src_pin, "src");
  require_apart(info, src, dst);
  const SegmentKeyUse use(handle);
  if (!usable(info, use)) return result_of(info, kRunRevoked);
  return result_of(info, seal_run(kernel(), use, dst, src, position, meta));
}

Napi::Value open(const Napi::CallbackInfo& info) {
  const SegmentKeyHandle handle = handle_arg(info, 0, "segmentKey");
  const auto [blocks, position] = range_args(info, 3, 4);
  const uint64_t lba = lba_arg(info, 5, blocks);
  const ArenaPin dst_pin(number_arg(info, 1, "dst"), blocks * kBlockBytes);
  const ArenaPin src_pin(number_arg(info, 2, "src"), blocks * kSlotBytes);
  const auto dst = pinned_bytes(info, dst_pin, "dst");
  const auto src = pinned_bytes(info, src_pin, "src");
  require_apart(info, src, dst);
  const SegmentKeyUse use(handle);
  if (!usable(info, use)) return result_of(info, kRunRevoked);
  return result_of(info, open_run(kernel(), use, dst, src, position, lba));
}

Napi::Value read(const Napi::CallbackInfo& info) {
  const SegmentKeyHandle handle = handle_arg(info, 0, "segmentKey");
  const int64_t fd = int_arg(info, 1, "fd", 0, INT32_MAX);
  const int64_t offset = int_arg(info, 2, "fileOffset", 0, kSequenceMax);
  const auto [blocks, position] = range_args(info, 3, 5);
  const uint64_t lba = lba_arg(info, 6, blocks);
  const bool no_wait = bool_arg(info, 7, "noWait");
  const ArenaPin dst_pin(number_arg(info, 4, "dst"), blocks * kBlockBytes);
  const auto dst = pinned_bytes(info, dst_pin, "dst");
  int64_t result = kRunOk;
  require_ok(info.Env(),
             read_run(kernel(), handle, {static_cast<int>(fd), offset, no_wait}, dst, position, lba, result));
  return result_of(info, result);
}

// One run of readRuns: segment key, descriptor, offset in the file, blocks, ref of dst, position, lba.
constexpr size_t kRunFields = 7;

int64_t read_one(Napi::Env env, std::span<const double> run, bool no_wait) {
  const auto fd = static_cast<int>(int_of(env, run[1], "fd", 0, INT32_MAX));
  const int64_t offset = int_of(env, run[2], "fileOffset", 0, kSequenceMax);
  const auto [blocks, position] = range_of(env, int_of(env, run[3], "blocks", 1, kPositions),
                                           int_of(env, run[5], "position", 0, kPositions - 1));
  const uint64_t lba = lba_of(env, run[6], blocks);
  const ArenaPin dst(run[4], blocks * kBlockBytes);
  if (!dst) throw_invalid(env, "dst must name bytes inside one arena");
  int64_t result = kRunOk;
  require_ok(env, read_run(kernel(), handle_of(run[0]), {fd, offset, no_wait}, dst.bytes(), position, lba, result));
  return result;
}

Napi::Value read_many(const Napi::CallbackInfo& info) {
  const auto runs = doubles_arg(info, 0, "runs");
  const int64_t count = int_arg(info, 2, "count", 0, static_cast<int64_t>(runs.size() / kRunFields));
  const int64_t first = int_arg(info, 1, "first", 0, count);
  const bool no_wait = bool_arg(info, 3, "noWait");
  const auto outcome = doubles_arg(info, 4, "outcome");
  if (outcome.empty()) throw_invalid(info.Env(), "outcome must have room for a number");
  for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(count); ++i) {
    const int64_t result = read_one(info.Env(), runs.subspan(i * kRunFields, kRunFields), no_wait);
    if (result == kRunOk) continue;
    outcome[0] = static_cast<double>(result);
    return result_of(info, static_cast<int64_t>(i));
  }
  return result_of(info, count);
}

Napi::Value scan(const Napi::CallbackInfo& info) {
  const SegmentKeyHandle handle = handle_arg(info, 0, "segmentKey");
  const auto [blocks, position] = range_args(info, 3, 4);
  const auto valid = bytes_arg(info, 5, "valid");
  if (valid.size() < blocks) throw_invalid(info.Env(), "valid must have a byte for each block");
  const ArenaPin dst_pin(number_arg(info, 1, "dst"), blocks * kBlockBytes);
  const ArenaPin src_pin(number_arg(info, 2, "src"), blocks * kSlotBytes);
  const auto dst = pinned_bytes(info, dst_pin, "dst");
  const auto src = pinned_bytes(info, src_pin, "src");
  require_apart(info, src, dst);
  const SegmentKeyUse use(handle);
  if (!usable(info, use)) return result_of(info, kRunRevoked);
  return result_of(info, scan_run(kernel(), use, dst, src, position, valid.first(blocks)));
}

const Registrar registrar([](Napi::Env env, Napi::Object exports) {
  export_function(env, exports, "sealRun", seal);
  export_function(env, exports, "openRun", open);
  export_function(env, exports, "readRun", read);
  export_function(env, exports, "readRuns", read_many);
  export_function(env, exports, "scanRun", scan);
});

}  // namespace
}  // namespace sealbd
