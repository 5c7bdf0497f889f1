#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "keys/runs.h"
#include "test/check.h"

namespace sealbd::test {
namespace {

constexpr size_t kBlocks = 100;  // more than one piece of what read_run reads at once
constexpr uint64_t kLba = 7;

SegmentKeyHandle plain_key() {
  const std::array<uint8_t, kSegmentContextBytes> context{};
  SegmentKeyHandle handle = 0;
  CHECK(segment_key_derive(kernel(), std::nullopt, Suite::none, context, handle) == KeyStatus::ok);
  return handle;
}

}  // namespace

// The memory of this process as a file: a hole in the address space is a part of it that cannot be read.
void reads_open_what_comes_before_a_failure() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t size = (kBlocks * kSlotBytes + page - 1) / page * page;
  void* const mapped = mmap(nullptr, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(mapped != MAP_FAILED);
  auto* const slots = static_cast<uint8_t*>(mapped);
  const std::vector<uint8_t> plain(kBlocks * kBlockBytes, 0x5a);
  const SegmentKeyHandle handle = plain_key();
  {
    const SegmentKeyUse use(handle);
    CHECK(seal_run(kernel(), use, {slots, kBlocks * kSlotBytes}, plain, 0, {1, kLba, SlotKind::data, -1}) == kRunOk);
  }
  const int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  const auto read = [&](size_t first, std::vector<uint8_t>& into) {
    into.assign((kBlocks - first) * kBlockBytes, 0xee);
    const auto at = static_cast<int64_t>(reinterpret_cast<uintptr_t>(slots) + first * kSlotBytes);
    int64_t result = 0;
    CHECK(read_run(kernel(), handle, {fd, at, false}, into, static_cast<uint32_t>(first), kLba + first, result) ==
          KeyStatus::ok);
    return result;
  };
  std::vector<uint8_t> back;
  CHECK(read(0, back) == kRunOk && back == plain);

  // Cut inside the slot `cut`, once in the second piece and once in the first.
  for (const size_t cut : {size_t{80}, size_t{30}}) {
    const size_t kept = (cut * kSlotBytes + kSlotBytes / 2) / page * page;
    CHECK(munmap(slots + kept, size - kept) == 0);
    const size_t whole = kept / kSlotBytes;
    CHECK(read(0, back) == static_cast<int64_t>(whole));
    const auto from = back.begin() + static_cast<std::ptrdiff_t>(whole * kBlockBytes);
    CHECK(std::equal(back.begin(), from, plain.begin()));
    CHECK(std::all_of(from, back.end(), [](uint8_t byte) { return byte == 0; }));
    CHECK(read(whole, back) == kRunErrnoBase - EIO);
    CHECK(std::all_of(back.begin(), back.end(), [](uint8_t byte) { return byte == 0; }));
    // A block that fails before the cut is the one that is named.
    slots[5 * kSlotBytes] ^= 1;
    CHECK(read(0, back) == 5 && back[5 * kBlockBytes] == 0 && back[6 * kBlockBytes] == 0x5a);
    slots[5 * kSlotBytes] ^= 1;
  }
  CHECK(close(fd) == 0);
  CHECK(segment_key_release(handle) == KeyStatus::ok);
}

}  // namespace sealbd::test
