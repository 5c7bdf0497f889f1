#include "keys/key_ops.h"

#include <string_view>

#include "aes/cmac.h"
#include "keys/random.h"
#include "keys/scrub.h"
#include "keys/wipe.h"

namespace sealbd {
namespace {

constexpr std::string_view kWrapLabel = "sealbd/v1/wrap";

void wrap_key_of(const Kernel& with, const uint8_t* kek, GcmKey& out) {
  Secret<Key> derived;
  derive_key(with, kek, {reinterpret_cast<const uint8_t*>(kWrapLabel.data()), kWrapLabel.size()}, {},
             derived.value.data());
  with.expand(derived.value.data(), out.aes);
  with.gcm_init(out);
}

}  // namespace

OpStatus op_status(KeyStatus status) {
  switch (status) {
    case KeyStatus::ok:
      return OpStatus::ok;
    case KeyStatus::revoked:
      return OpStatus::revoked;
    case KeyStatus::stale:
      return OpStatus::stale;
    case KeyStatus::memory:
      return OpStatus::memory;
  }
  return OpStatus::memory;
}

OpStatus key_generate(KeyHandle& out) {
  Secret<Key> bytes;
  if (!random_fill(bytes.value)) return OpStatus::no_random;
  return op_status(key_create(bytes.value.data(), out));
}

OpStatus key_equals(KeyHandle a, KeyHandle b, bool& equal) {
  const ScrubOnExit scrubbed;
  const KeyUse use_a(a);
  if (use_a.status() != KeyStatus::ok) return op_status(use_a.status());
  const KeyUse use_b(b);
  if (use_b.status() != KeyStatus::ok) return op_status(use_b.status());
  equal = equal_constant_time({use_a.bytes(), kKeyBytes}, {use_b.bytes(), kKeyBytes});
  return OpStatus::ok;
}

OpStatus key_mac(const Kernel& with, KeyHandle key, std::span<const uint8_t> label, std::span<const uint8_t> context,
                 std::span<const uint8_t> data, Block& mac) {
  const ScrubOnExit scrubbed;
  Secret<CmacKey> prepared;
  {
    // The slot is held for the derivation alone: a revocation does not wait for the MAC of a large buffer.
    const KeyUse use(key);
    if (use.status() != KeyStatus::ok) return op_status(use.status());
    Secret<Key> derived;
    derive_key(with, use.bytes(), label, context, derived.value.data());
    cmac_init(with, derived.value.data(), prepared.value);
  }
  mac = cmac(with, prepared.value, {data});
  return OpStatus::ok;
}

OpStatus key_wrap(const Kernel& with, KeyHandle kek, KeyHandle key, std::span<const uint8_t> aad,
                  std::span<uint8_t, kWrappedBytes> out) {
  const ScrubOnExit scrubbed;
  const KeyUse use_kek(kek);
  if (use_kek.status() != KeyStatus::ok) return op_status(use_kek.status());
  const KeyUse use_key(key);
  if (use_key.status() != KeyStatus::ok) return op_status(use_key.status());
  if (!random_fill(out.first<kIvBytes>())) return OpStatus::no_random;
  Secret<GcmKey> wrapping;
  wrap_key_of(with, use_kek.bytes(), wrapping.value);
  with.gcm_seal(wrapping.value, out.data(), aad.data(), aad.size(), use_key.bytes(), out.data() + kIvBytes, kKeyBytes,
                out.data() + kIvBytes + kKeyBytes);
  return OpStatus::ok;
}

OpStatus key_unwrap(const Kernel& with, KeyHandle kek, std::span<const uint8_t, kWrappedBytes> blob,
                    std::span<const uint8_t> aad, KeyHandle& out) {
  const ScrubOnExit scrubbed;
  Secret<Key> bytes;
  {
    const KeyUse use(kek);
    if (use.status() != KeyStatus::ok) return op_status(use.status());
    Secret<GcmKey> wrapping;
    wrap_key_of(with, use.bytes(), wrapping.value);
    const bool authentic = gcm_open(with, wrapping.value, blob.data(), aad, blob.data() + kIvBytes,
                                    bytes.value.data(), kKeyBytes, blob.data() + kIvBytes + kKeyBytes);
      if (!authentic) return OpStatus::not_authentic;
  }
  return op_status(key_create(bytes.value.data(), out));
}

}  // namespace sealbd
