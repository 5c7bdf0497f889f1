// Handles as arguments, and the errors of keys.
#pragma once

#include "keys/key_ops.h"
#include "napi/args.h"

namespace sealbd {

// Anything that cannot be a handle becomes 0, which names no key: the call then fails as for a stale one.
inline uint64_t handle_of(double value) {
  if (!(value >= 0 && value <= kMaxSafeInteger)) return 0;
  const auto handle = static_cast<uint64_t>(value);
  return static_cast<double>(handle) == value ? handle : 0;
}

inline uint64_t handle_arg(const Napi::CallbackInfo& info, size_t i, const char* name) {
  return handle_of(number_arg(info, i, name));
}

// Returns only where `status` is ok.
inline void require_ok(Napi::Env env, OpStatus status) {
  switch (status) {
    case OpStatus::ok:
      return;
    case OpStatus::revoked:
      throw error_with_code(env, "KEY_REVOKED", "the key was revoked");
    case OpStatus::stale:
      throw error_with_code(env, "KEY_STALE", "the handle names no key: it was released, or never existed");
    case OpStatus::memory:
      throw error_with_code(env, "KEY_MEMORY",
                            "no secure memory for another key: the table is full, or the kernel does not give or "
                            "lock more pages (RLIMIT_MEMLOCK)");
    case OpStatus::no_random:
      throw error_with_code(env, "KEY_MEMORY", "getrandom failed");
    case OpStatus::not_authentic:
      throw error_with_code(env, "KEY_AUTH", "the wrapped key does not authenticate under this key and context");
  }
}

inline void require_ok(Napi::Env env, KeyStatus status) { require_ok(env, op_status(status)); }

inline Napi::Number handle_value(Napi::Env env, uint64_t handle) {
  return Napi::Number::New(env, static_cast<double>(handle));
}

}  // namespace sealbd
