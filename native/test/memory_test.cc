#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "keys/key_slots.h"
#include "keys/secure_memory.h"
#include "keys/segment_keys.h"
#include "test/check.h"

namespace sealbd::test {
namespace {

// How a child ends that runs `body`: its exit code, or minus the signal.
template <class Body>
int in_child(Body body) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);  // a sanitizer would report instead of dying of it
    _exit(body());
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int touch(volatile uint8_t* at) {
  *at = 1;
  return 0;
}

bool all_zero(const uint8_t* bytes, size_t size) {
  return std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0; });
}

Key some_key() {
  Key key;
  key.fill(0xa5);
  return key;
}

SegmentKeyHandle derive(KeyHandle parent, Suite suite) {
  std::array<uint8_t, kSegmentContextBytes> context{};
  context[0] = static_cast<uint8_t>(suite);
  SegmentKeyHandle handle = 0;
  CHECK(segment_key_derive(kernel(), parent, suite, context, handle) == KeyStatus::ok);
  return handle;
}

const uint8_t* address_of(SegmentKeyHandle handle) {
  const SegmentKeyUse use(handle);
  CHECK(use.status() == KeyStatus::ok);
  return reinterpret_cast<const uint8_t*>(&use.key());
}

}  // namespace

void guard_pages_stop_overruns() {
  constexpr size_t kSize = 8192;
  uint8_t* const memory = secure_map(kSize - 100);
  CHECK(memory != nullptr && all_zero(memory, kSize));
  CHECK(touch(memory) == 0 && touch(memory + kSize - 1) == 0);
  CHECK(in_child([&] { return touch(memory - 1); }) == -SIGSEGV);
  CHECK(in_child([&] { return touch(memory + kSize); }) == -SIGSEGV);
}

void memory_given_back_is_gone() {
  const size_t before = secure_memory_state().bytes;
  constexpr size_t kSize = 5000;
  uint8_t* const memory = secure_map(kSize);
  CHECK(memory != nullptr && secure_memory_state().bytes == before + 8192);
  std::memset(memory, 0xa5, kSize);
  secure_unmap(memory, kSize);
  CHECK(secure_memory_state().bytes == before);
  for (const size_t offset : {size_t{0}, size_t{4096}, kSize}) {
    CHECK(in_child([&] { return touch(memory + offset); }) == -SIGSEGV);
  }
  for (int i = 0; i < 100000; ++i) {
    uint8_t* const again = secure_map(1);
    CHECK(again != nullptr && *again == 0);
    *again = 0xa5;
    secure_unmap(again, 1);
  }
}

void children_see_no_keys() {
  KeyHandle handle = 0;
  CHECK(key_create(some_key().data(), handle) == KeyStatus::ok);
  const uint8_t* bytes = nullptr;
  {
    const KeyUse use(handle);
    bytes = use.bytes();
    CHECK(std::memcmp(bytes, some_key().data(), kKeyBytes) == 0);
  }
  CHECK(in_child([&] { return all_zero(bytes, kKeyBytes) ? 7 : 1; }) == 7);
  CHECK(key_release(handle) == KeyStatus::ok);
}

void released_and_revoked_bytes_are_zero() {
  for (const bool revoke : {false, true}) {
    KeyHandle handle = 0;
    CHECK(key_create(some_key().data(), handle) == KeyStatus::ok);
    const uint8_t* key_bytes = nullptr;
    {
      const KeyUse use(handle);
      key_bytes = use.bytes();
    }
    const SegmentKeyHandle gcm = derive(handle, Suite::gcm);
    const SegmentKeyHandle ctr = derive(handle, Suite::ctr);
    const SegmentKeyHandle early = derive(handle, Suite::gcm);
    const uint8_t* const segments[] = {address_of(gcm), address_of(ctr), address_of(early)};
    for (const uint8_t* each : segments) CHECK(!all_zero(each, sizeof(SegmentKey)));
    CHECK(segment_key_release(early) == KeyStatus::ok);
    CHECK(all_zero(segments[2], sizeof(SegmentKey)));
    CHECK((revoke ? key_revoke(handle) : key_release(handle)) == KeyStatus::ok);
    CHECK(all_zero(key_bytes, kKeyBytes));
    for (const uint8_t* each : segments) CHECK(all_zero(each, sizeof(SegmentKey)));
    CHECK(segment_key_release(gcm) == KeyStatus::ok);
    CHECK(segment_key_release(ctr) == KeyStatus::ok);
    if (revoke) CHECK(key_release(handle) == KeyStatus::ok);
  }
}

}  // namespace sealbd::test
