// Key slots and segment keys through their lives, against a list of what they should be; wrapping; base64.
#include <array>
#include <map>

#include "fuzz/input.h"
#include "keys/base64.h"
#include "keys/key_ops.h"
#include "keys/segment_keys.h"

namespace sealbd::fuzz {
namespace {

constexpr size_t kStepsMax = 48;
constexpr size_t kKeysAtOnce = 6;

struct KeyModel {
  Key bytes{};
  uint32_t references = 0;
  bool revoked = false;
};

struct SegmentModel {
  KeyHandle parent = 0;
  bool revoked = false;
};

struct Model {
  std::map<KeyHandle, KeyModel> keys;
  std::map<SegmentKeyHandle, SegmentModel> segments;
  std::vector<uint64_t> gone;
};

KeyStatus state_of(const Model& model, KeyHandle handle) {
  const auto found = model.keys.find(handle);
  if (found == model.keys.end()) return KeyStatus::stale;
  return found->second.revoked ? KeyStatus::revoked : KeyStatus::ok;
}

// One that lives, one that is gone, or anything.
template <class Live>
uint64_t handle_of(Input& input, const Live& live, const std::vector<uint64_t>& gone) {
  const uint8_t kind = input.number();
  if (kind % 8 == 0) return input.number<uint64_t>();
  if (kind % 8 == 1 && !gone.empty()) return gone[kind / 8 % gone.size()] + (kind / 128) * kKeysMax;
  if (live.empty()) return kind;
  auto at = live.begin();
  std::advance(at, kind / 8 % live.size());
  return at->first;
}

void revoke_segments(Model& model, KeyHandle parent) {
  for (auto& [handle, segment] : model.segments) segment.revoked |= segment.parent == parent;
}

void add_key(Model& model, KeyHandle handle, const Key& bytes) {
  REQUIRE(model.keys.emplace(handle, KeyModel{bytes, 1, false}).second);
}

void release(Model& model, KeyHandle handle) {
  const KeyStatus before = state_of(model, handle);
  REQUIRE(key_release(handle) == (before == KeyStatus::stale ? KeyStatus::stale : KeyStatus::ok));
  if (before == KeyStatus::stale || --model.keys[handle].references > 0) return;
  model.keys.erase(handle);
  model.gone.push_back(handle);
  revoke_segments(model, handle);
}

void wrap(Input& input, Model& model, KeyHandle kek, KeyHandle key) {
  const Bytes aad = input.bytes(input.number() % 24);
  std::array<uint8_t, kWrappedBytes> blob{};
  const OpStatus wrapped = key_wrap(kernel(), kek, key, aad, blob);
  const KeyStatus first = state_of(model, kek);
  REQUIRE(wrapped == op_status(first != KeyStatus::ok ? first : state_of(model, key)));
  if (wrapped != OpStatus::ok || model.keys.size() >= kKeysAtOnce) return;
  const uint8_t flip = input.number() % 2 == 0 ? 0 : input.number();
  blob[input.below(kWrappedBytes)] ^= flip;
  KeyHandle back = 0;
  const OpStatus unwrapped = key_unwrap(kernel(), kek, blob, aad, back);
  REQUIRE(unwrapped == (flip == 0 ? OpStatus::ok : OpStatus::not_authentic));
  if (flip == 0) add_key(model, back, model.keys[key].bytes);
}

void compare(const Model& model, KeyHandle a, KeyHandle b) {
  bool equal = false;
  const KeyStatus first = state_of(model, a);
  const OpStatus status = key_equals(a, b, equal);
  REQUIRE(status == op_status(first != KeyStatus::ok ? first : state_of(model, b)));
  if (status == OpStatus::ok) REQUIRE(equal == (model.keys.at(a).bytes == model.keys.at(b).bytes));
}

void derive(Input& input, Model& model, KeyHandle parent) {
  const auto suite = static_cast<Suite>(input.number() % 3);
  std::array<uint8_t, kSegmentContextBytes> context{};
  context[0] = static_cast<uint8_t>(suite);
  std::optional<KeyHandle> under;
  if (suite != Suite::none) under = parent;
  SegmentKeyHandle handle = 0;
  const KeyStatus expected = under ? state_of(model, parent) : KeyStatus::ok;
  REQUIRE(segment_key_derive(kernel(), under, suite, context, handle) == expected);
  if (expected != KeyStatus::ok) return;
  REQUIRE(model.segments.emplace(handle, SegmentModel{under.value_or(0), false}).second);
  const SegmentKeyUse use(handle);
  REQUIRE(use.status() == KeyStatus::ok && use.key().suite == suite);
}

void use_segment(const Model& model, SegmentKeyHandle handle) {
  const auto found = model.segments.find(handle);
  const SegmentKeyUse use(handle);
  REQUIRE(use.status() == (found == model.segments.end()    ? KeyStatus::stale
                           : found->second.revoked ? KeyStatus::revoked
                                                   : KeyStatus::ok));
}

void release_segment(Model& model, SegmentKeyHandle handle) {
  const bool there = model.segments.erase(handle) > 0;
  REQUIRE(segment_key_release(handle) == (there ? KeyStatus::ok : KeyStatus::stale));
}

// RFC 4648 by the book: 32 bytes, and only their one canonical text.
bool slow_base64(std::span<const uint8_t> text, Key& out) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint32_t bits = 0;
  size_t have = 0;
  size_t written = 0;
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const void* const digit = text[i] == 0 ? nullptr : std::memchr(kDigits, text[i], 64);
    if (digit == nullptr) return false;
    bits = bits << 6 | static_cast<uint32_t>(static_cast<const char*>(digit) - kDigits);
    have += 6;
    if (have < 8) continue;
    have -= 8;
    out[written++] = static_cast<uint8_t>(bits >> have);
    bits &= (1U << have) - 1;
  }
  return text.back() == '=' && bits == 0;
}

void base64(Input& input) {
  std::array<uint8_t, kKeyBase64Bytes> text{};
  const Key key = input.array<kKeyBytes>();
  base64_encode_key(key, text);
  Key back{};
  REQUIRE(base64_decode_key(text, back) && back == key);
  text[input.below(text.size())] ^= input.number();
  Key slow{};
  const bool right = slow_base64(text, slow);
  REQUIRE(base64_decode_key(text, back) == right);
  if (right) REQUIRE(back == slow);
}

void step(Input& input, Model& model) {
  const uint8_t kind = input.number() % 10;
  const KeyHandle a = handle_of(input, model.keys, model.gone);
  const KeyStatus state = state_of(model, a);
  const KeyStatus there = state == KeyStatus::stale ? KeyStatus::stale : KeyStatus::ok;
  switch (kind) {
    case 0: {
      if (model.keys.size() >= kKeysAtOnce) return;
      const Key bytes = input.array<kKeyBytes>();
      KeyHandle handle = 0;
      REQUIRE(key_create(bytes.data(), handle) == KeyStatus::ok);
      return add_key(model, handle, bytes);
    }
    case 1:
      REQUIRE(key_retain(a) == state);
      if (state == KeyStatus::ok) model.keys[a].references += 1;
      return;
    case 2:
      return release(model, a);
    case 3:
      REQUIRE(key_revoke(a) == there);
      if (there != KeyStatus::ok) return;
      model.keys[a].revoked = true;
      return revoke_segments(model, a);
    case 4: {
      const KeyUse use(a);
      REQUIRE(use.status() == state && key_state(a) == state);
      if (state == KeyStatus::ok) REQUIRE(std::memcmp(use.bytes(), model.keys[a].bytes.data(), kKeyBytes) == 0);
      return;
    }
    case 5:
      return wrap(input, model, a, handle_of(input, model.keys, model.gone));
    case 6:
      return compare(model, a, handle_of(input, model.keys, model.gone));
    case 7:
      return derive(input, model, a);
    case 8:
      return release_segment(model, handle_of(input, model.segments, model.gone));
    default:
      use_segment(model, handle_of(input, model.segments, model.gone));
      return base64(input);
  }
}

}  // namespace
}  // namespace sealbd::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sealbd;
  using namespace sealbd::fuzz;
  Input input(data, size);
  Model model;
  for (size_t i = 0; i < kStepsMax && !input.empty(); ++i) step(input, model);
  REQUIRE(keys_used() == model.keys.size() && segment_keys_used() == model.segments.size());
  while (!model.segments.empty()) release_segment(model, model.segments.begin()->first);
  while (!model.keys.empty()) release(model, model.keys.begin()->first);
  return 0;
}
