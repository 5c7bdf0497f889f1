#include <algorithm>
#include <cstring>
#include <vector>

#include "aes/cmac.h"
#include "keys/key_ops.h"
#include "keys/key_slots.h"
#include "keys/runs.h"
#include "keys/segment_keys.h"
#include "test/check.h"

namespace sealbd::test {
namespace {

using Lane = std::array<uint8_t, 16>;
constexpr size_t kRegisters = 32;
constexpr size_t kLanes = 4;
using Registers = std::array<std::array<Lane, kLanes>, kRegisters>;

#if defined(__x86_64__)

#define SEALBD_STORE(n) __asm__ __volatile__("vmovdqu64 %%zmm" #n ", %0" : "=m"(to[n]));
__attribute__((noinline, target("avx512f"))) void capture_wide(Registers& to) {
  SEALBD_STORE(0) SEALBD_STORE(1) SEALBD_STORE(2) SEALBD_STORE(3) SEALBD_STORE(4) SEALBD_STORE(5) SEALBD_STORE(6)
  SEALBD_STORE(7) SEALBD_STORE(8) SEALBD_STORE(9) SEALBD_STORE(10) SEALBD_STORE(11) SEALBD_STORE(12)
  SEALBD_STORE(13) SEALBD_STORE(14) SEALBD_STORE(15) SEALBD_STORE(16) SEALBD_STORE(17) SEALBD_STORE(18)
  SEALBD_STORE(19) SEALBD_STORE(20) SEALBD_STORE(21) SEALBD_STORE(22) SEALBD_STORE(23) SEALBD_STORE(24)
  SEALBD_STORE(25) SEALBD_STORE(26) SEALBD_STORE(27) SEALBD_STORE(28) SEALBD_STORE(29) SEALBD_STORE(30)
  SEALBD_STORE(31)
}
#undef SEALBD_STORE

#define SEALBD_STORE(n) __asm__ __volatile__("movdqu %%xmm" #n ", %0" : "=m"(to[n][0]));
__attribute__((noinline)) void capture_narrow(Registers& to) {
  SEALBD_STORE(0) SEALBD_STORE(1) SEALBD_STORE(2) SEALBD_STORE(3) SEALBD_STORE(4) SEALBD_STORE(5) SEALBD_STORE(6)
  SEALBD_STORE(7) SEALBD_STORE(8) SEALBD_STORE(9) SEALBD_STORE(10) SEALBD_STORE(11) SEALBD_STORE(12)
  SEALBD_STORE(13) SEALBD_STORE(14) SEALBD_STORE(15)
}
#undef SEALBD_STORE

void capture(Registers& to) {
  if (__builtin_cpu_supports("avx512f")) {
    capture_wide(to);
  } else {
    capture_narrow(to);
  }
}

#else
void capture(Registers&) {}
#endif

bool in_registers(const Registers& registers, const Lane& wanted) {
  return std::any_of(registers.begin(), registers.end(), [&](const auto& lanes) {
    return std::find(lanes.begin(), lanes.end(), wanted) != lanes.end();
  });
}

bool any_round_key(const Registers& registers, const Key& key) {
  AesKey expanded;
  kernel().expand(key.data(), expanded);
  return std::any_of(std::begin(expanded.round), std::end(expanded.round), [&](const auto& round) {
    Lane lane;
    std::memcpy(lane.data(), round, lane.size());
    return in_registers(registers, lane);
  });
}

}  // namespace

// Every operation that touches a key, then a look at the registers before anything else uses them.
void registers_hold_no_keys() {
  Key key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(0x31 + 7 * i);
  const std::array<uint8_t, 4> text{'t', 'e', 's', 't'};
  std::array<uint8_t, kSegmentContextBytes> context{};
  context[0] = static_cast<uint8_t>(Suite::gcm);
  constexpr char kLabel[] = "sealbd/v1/segment-data";
  Key working;
  derive_key(kernel(), key.data(), {reinterpret_cast<const uint8_t*>(kLabel), sizeof kLabel - 1}, context,
             working.data());
  std::vector<uint8_t> blocks(4 * kBlockBytes, 0x11);
  std::vector<uint8_t> slots(4 * kSlotBytes);

  std::vector<Registers> after;
  const auto look = [&after] {
    Registers registers{};
    capture(registers);
    after.push_back(registers);
  };
  after.reserve(8);
  // The look itself sees what is there: this one comes right after a bare kernel call.
  AesKey expanded;
  Block block{};
  kernel().expand(key.data(), expanded);
  kernel().encrypt_block(expanded, block.data(), block.data());
  look();

  KeyHandle handle = 0;
  CHECK(key_create(key.data(), handle) == KeyStatus::ok);
  look();
  Block mac;
  CHECK(key_mac(kernel(), handle, text, context, text, mac) == OpStatus::ok);
  look();
  SegmentKeyHandle segment = 0;
  CHECK(segment_key_derive(kernel(), handle, Suite::gcm, context, segment) == KeyStatus::ok);
  look();
  {
    const SegmentKeyUse use(segment);
    CHECK(seal_run(kernel(), use, slots, blocks, 0, {1, 0, SlotKind::data, -1}) == kRunOk);
    look();
    CHECK(open_run(kernel(), use, blocks, slots, 0, 0) == kRunOk);
    look();
  }
  std::array<uint8_t, kWrappedBytes> wrapped;
  CHECK(key_wrap(kernel(), handle, handle, text, wrapped) == OpStatus::ok);
  look();
  KeyHandle again = 0;
  CHECK(key_unwrap(kernel(), handle, wrapped, text, again) == OpStatus::ok);
  look();

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
  // A sanitizer's own calls use the registers in between.
  CHECK(any_round_key(after[0], key) || std::strcmp(kernel().name, "portable") == 0);
#endif
  for (size_t i = 1; i < after.size(); ++i) {
    CHECK(!any_round_key(after[i], key));
    CHECK(!any_round_key(after[i], working));
  }
  CHECK(segment_key_release(segment) == KeyStatus::ok);
  CHECK(key_release(again) == KeyStatus::ok);
  CHECK(key_release(handle) == KeyStatus::ok);
}

}  // namespace sealbd::test
