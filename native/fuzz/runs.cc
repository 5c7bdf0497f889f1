// Slots that somebody changed, moved or cut off, in memory and in a file: sealRun, openRun, scanRun, readRun. A slot opens
// where it was sealed and nowhere else; whatever does not open is zeros.
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz/input.h"
#include "keys/runs.h"

namespace sealbd::fuzz {
namespace {

// More than read_run reads in one piece, at times.
constexpr size_t kFewBlocks = 4;
constexpr size_t kManyBlocks = 70;
constexpr size_t kChangesMax = 6;

// One descriptor for the life of the process.
int scratch_file() {
  static const int fd = memfd_create("fuzz-runs", MFD_CLOEXEC);
  REQUIRE(fd >= 0);
  return fd;
}

struct Scene {
  Suite suite;
  size_t blocks;
  uint32_t position;
  SlotMeta meta;
  Bytes plain;
  Bytes sealed;   // as seal_run made it
  Bytes slots;    // what is there now
};

bool is_zero(std::span<const uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

void change(Input& input, Scene& scene) {
  const size_t a = input.below(scene.blocks);
  const size_t b = input.below(scene.blocks);
  uint8_t* const slot = scene.slots.data() + a * kSlotBytes;
  switch (input.number() % 4) {
    case 0:
      slot[input.below(kSlotBytes)] ^= input.number();
      return;
    case 1:  // the trailer, where most of the meaning is
      slot[kBlockBytes + input.below(kSlotBytes - kBlockBytes)] = input.number();
      return;
    case 2:
      std::memmove(slot, scene.slots.data() + b * kSlotBytes, kSlotBytes);
      return;
    case 3:
      std::memset(slot, input.number(), kSlotBytes);
      return;
  }
}

// Whether slot i of the run still holds what was sealed there.
bool intact(const Scene& scene, size_t i) {
  return std::memcmp(scene.slots.data() + i * kSlotBytes, scene.sealed.data() + i * kSlotBytes, kSlotBytes) == 0;
}

void require_blocks(const Scene& scene, size_t first, std::span<const uint8_t> got, const std::vector<bool>& good) {
  for (size_t i = 0; i < good.size(); ++i) {
    const auto block = got.subspan(i * kBlockBytes, kBlockBytes);
    if (good[i]) {
      REQUIRE(std::memcmp(block.data(), scene.plain.data() + (first + i) * kBlockBytes, kBlockBytes) == 0);
    } else {
      REQUIRE(is_zero(block));
    }
  }
}

int64_t first_bad(const std::vector<bool>& good) {
  const auto at = std::find(good.begin(), good.end(), false);
  return at == good.end() ? kRunOk : at - good.begin();
}

// Opens slots [first, blocks), claiming that they are `shift` positions, and `lba_shift` blocks, further on.
void open_all(const Scene& scene, const SegmentKeyUse& use, size_t first, uint32_t shift, uint64_t lba_shift) {
  const size_t count = scene.blocks - first;
  const auto position = static_cast<uint32_t>(scene.position + first + shift);
  const bool moved = shift != 0;
  std::vector<bool> good(count);
  std::vector<bool> authentic(count);
  const bool data = scene.meta.kind == SlotKind::data;
  for (size_t i = 0; i < count; ++i) {
    authentic[i] = intact(scene, first + i) && !moved;
    good[i] = authentic[i] && lba_shift == 0 && data;
  }
  const Bytes slots(scene.slots.begin() + static_cast<std::ptrdiff_t>(first * kSlotBytes), scene.slots.end());
  Bytes back(count * kBlockBytes, 0xee);
  const int64_t opened = open_run(kernel(), use, back, slots, position, scene.meta.lba + first + lba_shift);
  REQUIRE(opened == first_bad(good));
  require_blocks(scene, first, back, good);

  back.assign(back.size(), 0xee);
  Bytes valid(count, 0xee);
  REQUIRE(scan_run(kernel(), use, back, slots, position, valid) == kRunOk);
  for (size_t i = 0; i < count; ++i) REQUIRE(valid[i] == (authentic[i] ? 1 : 0));
  require_blocks(scene, first, back, authentic);
}

// The same from a file that ends somewhere.
void read_all(const Scene& scene, SegmentKeyHandle handle, size_t first, size_t file_size, bool no_wait) {
  const int fd = scratch_file();
  REQUIRE(ftruncate(fd, 0) == 0);
  const size_t kept = std::min(file_size, scene.slots.size());
  REQUIRE(pwrite(fd, scene.slots.data(), kept, 0) == static_cast<ssize_t>(kept));
  const size_t count = scene.blocks - first;
  std::vector<bool> good(count);
  for (size_t i = 0; i < count; ++i) {
    const bool there = (first + i + 1) * kSlotBytes <= kept;
    good[i] = there && intact(scene, first + i) && scene.meta.kind == SlotKind::data;
  }
  Bytes back(count * kBlockBytes, 0xee);
  int64_t result = 0;
  const FileRange from{fd, static_cast<int64_t>(first * kSlotBytes), no_wait};
  const KeyStatus status = read_run(kernel(), handle, from, back, static_cast<uint32_t>(scene.position + first),
                                    scene.meta.lba + first, result);
  REQUIRE(status == KeyStatus::ok);
  if (result == kRunWouldBlock) {
    REQUIRE(no_wait);
    return;
  }
  REQUIRE(result == first_bad(good));
  require_blocks(scene, first, back, good);
}

Scene scene_of(Input& input) {
  Scene scene;
  scene.suite = static_cast<Suite>(input.number() % 3);
  scene.blocks = 1 + input.below(input.number() % 8 == 0 ? kManyBlocks : kFewBlocks);
  scene.position = static_cast<uint32_t>(input.below(kPositions - scene.blocks));
  scene.meta.kind = input.number() % 8 == 0 ? SlotKind::extents : SlotKind::data;
  scene.meta.lba = input.number<uint64_t>() & ((uint64_t{1} << 39) - 1);
  scene.meta.sequence = input.number<uint64_t>() & ((uint64_t{1} << 52) - 1);
  scene.meta.durable = input.number() % 2 == 0 ? -1 : static_cast<int64_t>(scene.meta.sequence / 2);
  if (scene.meta.kind == SlotKind::extents) {
    scene.blocks = 1;
    scene.meta.lba = 0;
  }
  return scene;
}

}  // namespace
}  // namespace sealbd::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sealbd;
  using namespace sealbd::fuzz;
  Input input(data, size);
  Scene scene = scene_of(input);
  std::array<uint8_t, kSegmentContextBytes> context = input.array<kSegmentContextBytes>();
  context[0] = static_cast<uint8_t>(scene.suite);
  const Key bytes = input.array<kKeyBytes>();
  KeyHandle parent = 0;
  REQUIRE(key_create(bytes.data(), parent) == KeyStatus::ok);
  std::optional<KeyHandle> under;
  if (scene.suite != Suite::none) under = parent;
  SegmentKeyHandle handle = 0;
  REQUIRE(segment_key_derive(kernel(), under, scene.suite, context, handle) == KeyStatus::ok);
  const size_t changes = input.below(kChangesMax);
  const size_t first = input.below(scene.blocks);
  const auto shift = static_cast<uint32_t>(input.number() % 4 == 0);
  const auto lba_shift = static_cast<uint64_t>(input.number() % 4 == 0);
  const size_t file_size = input.number<uint32_t>() % (scene.blocks * kSlotBytes + 2);
  const bool no_wait = input.number() % 2 == 1;
  Input edits = input;
  scene.plain = input.filled(scene.blocks * kBlockBytes);
  scene.sealed.resize(scene.blocks * kSlotBytes);
  {
    const SegmentKeyUse use(handle);
    REQUIRE(use.status() == KeyStatus::ok);
    REQUIRE(seal_run(kernel(), use, scene.sealed, scene.plain, scene.position, scene.meta) == kRunOk);
    scene.slots = scene.sealed;
    open_all(scene, use, 0, 0, 0);
    for (size_t i = 0; i < changes; ++i) change(edits, scene);
    open_all(scene, use, first, shift, lba_shift);
  }
  read_all(scene, handle, first, file_size, no_wait);
  REQUIRE(key_revoke(parent) == KeyStatus::ok);
  if (scene.suite != Suite::none) {
    Bytes back(kBlockBytes, 0xee);
    int64_t result = 0;
    REQUIRE(read_run(kernel(), handle, {scratch_file(), 0, false}, back, scene.position, scene.meta.lba, result) ==
            KeyStatus::ok);
    REQUIRE(result == kRunRevoked && is_zero(back));
  }
  REQUIRE(segment_key_release(handle) == KeyStatus::ok);
  REQUIRE(key_release(parent) == KeyStatus::ok);
  REQUIRE(keys_used() == 0 && segment_keys_used() == 0);
  return 0;
}
