// What operations with keys leave in vector registers and on the stack, on every kernel.
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <functional>
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

constexpr size_t kBlocks = 2;
constexpr std::array<uint8_t, 4> kText{'t', 'e', 's', 't'};

std::array<uint8_t, kSegmentContextBytes> context_of(Suite suite) {
  std::array<uint8_t, kSegmentContextBytes> context{};
  context[0] = static_cast<uint8_t>(suite);
  return context;
}

// Keys and blocks that depend on `seed`, and every operation on them.
class Work {
 public:
  Work(const Kernel& with, uint8_t seed) : with_(with) {
    for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(0x31 + 7 * i + seed * (5 + 3 * i * i));
    for (size_t i = 0; i < plain.size(); ++i) {
      plain[i] = static_cast<uint8_t>(131 * i + 7 * (i >> 8) + 1 + seed * (11 + i));
    }
    CHECK(key_create(key.data(), handle_) == KeyStatus::ok);
    CHECK(key_wrap(with, handle_, handle_, kText, wrapped_) == OpStatus::ok);
    for (Segment* segment : {&ctr_, &gcm_}) {
      CHECK(segment_key_derive(with, handle_, segment->suite, context_of(segment->suite), segment->key) ==
            KeyStatus::ok);
      seal(*segment);
    }
  }
  ~Work() {
    for (const Segment& segment : {ctr_, gcm_}) CHECK(segment_key_release(segment.key) == KeyStatus::ok);
    CHECK(key_release(handle_) == KeyStatus::ok);
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  SegmentKeyHandle gcm() const { return gcm_.key; }

  // Each is run by itself; what it made is let go afterwards.
  std::vector<std::function<void()>> operations() {
    return {
        [this] { CHECK(key_create(key.data(), made_key_) == KeyStatus::ok); },
        [this] { CHECK(key_mac(with_, handle_, kText, context_of(Suite::gcm), kText, mac_) == OpStatus::ok); },
        [this] { CHECK(key_wrap(with_, handle_, handle_, kText, wrapped_) == OpStatus::ok); },
        [this] { CHECK(key_unwrap(with_, handle_, wrapped_, kText, made_key_) == OpStatus::ok); },
        [this] { CHECK(key_unwrap(with_, handle_, wrapped_, {}, made_key_) == OpStatus::not_authentic); },
        [this] { derive(Suite::ctr); },
        [this] { derive(Suite::gcm); },
        [this] { seal(ctr_); },
        [this] { seal(gcm_); },
        [this] { CHECK(open(ctr_, 0) == kRunOk); },
        [this] { CHECK(open(gcm_, 0) == kRunOk); },
        [this] { CHECK(open(gcm_, 1) == 0); },
    };
  }

  void let_go() {
    if (made_key_ != 0) CHECK(key_release(made_key_) == KeyStatus::ok);
    if (made_segment_ != 0) CHECK(segment_key_release(made_segment_) == KeyStatus::ok);
    made_key_ = 0;
    made_segment_ = 0;
  }

  Key key;
  std::vector<uint8_t> plain = std::vector<uint8_t>(kBlocks * kBlockBytes);

 private:
  struct Segment {
    Suite suite;
    SegmentKeyHandle key = 0;
    std::vector<uint8_t> slots = std::vector<uint8_t>(kBlocks * kSlotBytes);
  };

  void derive(Suite suite) {
    CHECK(segment_key_derive(with_, handle_, suite, context_of(suite), made_segment_) == KeyStatus::ok);
  }
  void seal(Segment& segment) {
    const SegmentKeyUse use(segment.key);
    CHECK(seal_run(with_, use, segment.slots, plain, 0, {1, 0, SlotKind::data, -1}) == kRunOk);
  }
  int64_t open(const Segment& segment, uint32_t position) {
    const SegmentKeyUse use(segment.key);
    return open_run(with_, use, back_, segment.slots, position, 0);
  }

  const Kernel& with_;
  KeyHandle handle_ = 0;
  Segment ctr_{Suite::ctr};
  Segment gcm_{Suite::gcm};
  KeyHandle made_key_ = 0;
  SegmentKeyHandle made_segment_ = 0;
  Block mac_{};
  std::array<uint8_t, kWrappedBytes> wrapped_{};
  std::vector<uint8_t> back_ = std::vector<uint8_t>(kBlocks * kBlockBytes);
};

// Round keys, hash powers and plaintext, 16 bytes each.
std::vector<Lane> secrets_of(const Kernel& with, const Work& work) {
  std::vector<Lane> secrets;
  const auto add = [&](const void* from, size_t size) {
    for (size_t at = 0; at < size; at += sizeof(Lane)) {
      Lane lane;
      std::memcpy(lane.data(), static_cast<const uint8_t*>(from) + at, sizeof lane);
      if (lane != Lane{}) secrets.push_back(lane);
    }
  };
  AesKey expanded;
  with.expand(work.key.data(), expanded);
  add(&expanded, sizeof expanded);
  const SegmentKeyUse use(work.gcm());
  add(&use.key().gcm, sizeof use.key().gcm);
  add(work.plain.data(), work.plain.size());
  return secrets;
}

bool any_in(const Registers& registers, const std::vector<Lane>& secrets) {
  return std::any_of(registers.begin(), registers.end(), [&](const auto& lanes) {
    return std::any_of(lanes.begin(), lanes.end(), [&](const Lane& lane) {
      return std::find(secrets.begin(), secrets.end(), lane) != secrets.end();
    });
  });
}

}  // namespace

void registers_hold_no_keys() {
  for (const Kernel* with : kernels()) {
    if (!with->supported()) continue;
    Work work(*with, 0);
    const std::vector<Lane> secrets = secrets_of(*with, work);
    Registers registers{};
    {
      // The kernel alone leaves something, so the look at the registers sees what is there.
      const SegmentKeyUse use(work.gcm());
      std::vector<uint8_t> slot(kSlotBytes);
      seal_slot(*with, use.key(), 0, {1, 0, SlotKind::data, -1},
                std::span<const uint8_t>(work.plain).first<kBlockBytes>(), std::span(slot).first<kSlotBytes>());
      capture(registers);
      if (with != &kernel_portable) CHECK(any_in(registers, secrets));
    }
    for (const auto& operation : work.operations()) {
      operation();
      capture(registers);
      CHECK(!any_in(registers, secrets));
      work.let_go();
    }
  }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

// The sanitizers lay out frames of their own.
void stacks_hold_no_keys() {}

#else

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr uint8_t kPaint = 0xa5;
alignas(64) uint8_t stack[kStackBytes];
ucontext_t outside;
const std::function<void()>* on_stack = nullptr;

// Copies what `operation` leaves on a stack of its own.
void left_by(const std::function<void()>& operation, std::vector<uint8_t>& left) {
  std::memset(stack, kPaint, sizeof stack);
  ucontext_t inside;
  CHECK(getcontext(&inside) == 0);
  inside.uc_stack.ss_sp = stack;
  inside.uc_stack.ss_size = sizeof stack;
  inside.uc_link = &outside;
  on_stack = &operation;
  makecontext(&inside, [] { (*on_stack)(); }, 0);
  CHECK(swapcontext(&outside, &inside) == 0);
  std::copy(std::begin(stack), std::end(stack), left.begin());
}

// Bytes that are the same whenever the secrets are, and others for other secrets: how many, and how deep they go.
struct Residue {
  size_t depth = 0;
  size_t bytes = 0;
};

Residue residue_of(const Kernel& with, size_t operation) {
  // In this order what merely counts or alternates (generations and places of handles) is not taken for a secret.
  constexpr std::array<uint8_t, 8> kSeeds{0, 1, 1, 0, 1, 0, 0, 1};
  // Taken once and for all: the runs must find the heap in the same state, for stacks hold addresses too.
  std::vector<std::vector<uint8_t>> left(kSeeds.size(), std::vector<uint8_t>(kStackBytes));
  for (size_t run = 0; run < kSeeds.size(); ++run) {
    Work work(with, kSeeds[run]);
    left_by(work.operations()[operation], left[run]);
    work.let_go();
  }
  const auto told_by = [&](size_t i) {
    for (size_t run = 0; run < kSeeds.size(); ++run) {
      if (left[run][i] != left[kSeeds[run]][i]) return false;
    }
    return left[0][i] != left[1][i];
  };
  Residue residue;
  for (size_t i = 0; i < kStackBytes; ++i) {
    if (!told_by(i)) continue;
    residue.depth = std::max(residue.depth, kStackBytes - i);
    residue.bytes += 1;
  }
  return residue;
}

}  // namespace

void stacks_hold_no_keys() {
  for (const Kernel* with : kernels()) {
    if (!with->supported()) continue;
    // Once without a look: the first time may still find symbols, or map memory.
    const size_t operations = Work(*with, 0).operations().size();
    for (size_t i = 0; i < operations; ++i) residue_of(*with, i);
    for (size_t i = 0; i < operations; ++i) {
      const Residue residue = residue_of(*with, i);
      if (residue.bytes > 0) {
        std::fprintf(stderr, "%s, operation %zu: %zu bytes that depend on secrets, %zu deep\n", with->name, i,
                     residue.bytes, residue.depth);
      }
      CHECK(residue.bytes == 0);
    }
  }
}

#endif

}  // namespace sealbd::test
