// secureMemory*, key*, scrubStack, segmentKeyDerive, segmentKeyRelease.
#include <napi.h>

#include <cstring>

#include "keys/base64.h"
#include "keys/key_ops.h"
#include "keys/scrub.h"
#include "keys/secure_memory.h"
#include "keys/segment_keys.h"
#include "keys/wipe.h"
#include "napi/args.h"
#include "napi/key_args.h"
#include "napi/registry.h"

namespace sealbd {
namespace {

Napi::Value require_locked(const Napi::CallbackInfo& info) {
  secure_memory_require_locked(bool_arg(info, 0, "required"));
  return info.Env().Undefined();
}

Napi::Value secure_memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  require_ok(env, key_memory_prepare());
  const SecureMemoryState state = secure_memory_state();
  Napi::Object result = Napi::Object::New(env);
  result.Set("locked", Napi::Boolean::New(env, state.locked));
  result.Set("pagesBytes", Napi::Number::New(env, static_cast<double>(state.bytes)));
  result.Set("slotsUsed", Napi::Number::New(env, static_cast<double>(keys_used())));
  result.Set("segmentKeysUsed", Napi::Number::New(env, static_cast<double>(segment_keys_used())));
  return result;
}

Napi::Value generate(const Napi::CallbackInfo& info) {
  KeyHandle handle = 0;
  require_ok(info.Env(), key_generate(handle));
  return handle_value(info.Env(), handle);
}

Napi::Value import_bytes(const Napi::CallbackInfo& info) {
  const auto bytes = bytes_arg(info, 0, "bytes", kKeyBytes);
  KeyHandle handle = 0;
  const KeyStatus status = key_create(bytes.data(), handle);
  wipe(bytes);
  require_ok(info.Env(), status);
  return handle_value(info.Env(), handle);
}

// The 44 characters of `text` (argument i) at `start` (argument i + 1).
std::span<uint8_t, kKeyBase64Bytes> base64_arg(const Napi::CallbackInfo& info, size_t i) {
  const auto text = bytes_arg(info, i, "text");
  const auto start = static_cast<size_t>(int_arg(info, i + 1, "start", 0, INT32_MAX));
  if (start > text.size() || text.size() - start < kKeyBase64Bytes) {
    throw_invalid(info.Env(), "text must have 44 bytes at start");
  }
  return text.subspan(start).first<kKeyBase64Bytes>();
}

Napi::Value import_base64(const Napi::CallbackInfo& info) {
  const ScrubOnExit scrubbed;
  const auto text = base64_arg(info, 0);
  Secret<Key> bytes;
  const bool canonical = base64_decode_key(text, bytes.value);
  std::memset(text.data(), '*', text.size());
  if (!canonical) throw_invalid(info.Env(), "the text is not the base64 form of 32 bytes");
  KeyHandle handle = 0;
  require_ok(info.Env(), key_create(bytes.value.data(), handle));
  return handle_value(info.Env(), handle);
}

Napi::Value export_base64(const Napi::CallbackInfo& info) {
  const ScrubOnExit scrubbed;
  const auto text = base64_arg(info, 1);
  const KeyUse use(handle_arg(info, 0, "key"));
  require_ok(info.Env(), use.status());
  base64_encode_key(std::span<const uint8_t, kKeyBytes>(use.bytes(), kKeyBytes), text);
  return info.Env().Undefined();
}

Napi::Value scrub_stack(const Napi::CallbackInfo& info) {
  scrub_runtime();
  return info.Env().Undefined();
}

Napi::Value retain(const Napi::CallbackInfo& info) {
  require_ok(info.Env(), key_retain(handle_arg(info, 0, "key")));
  return info.Env().Undefined();
}

Napi::Value release(const Napi::CallbackInfo& info) {
  require_ok(info.Env(), key_release(handle_arg(info, 0, "key")));
  return info.Env().Undefined();
}

Napi::Value revoke(const Napi::CallbackInfo& info) {
  require_ok(info.Env(), key_revoke(handle_arg(info, 0, "key")));
  return info.Env().Undefined();
}

Napi::Value is_revoked(const Napi::CallbackInfo& info) {
  const KeyStatus status = key_state(handle_arg(info, 0, "key"));
  if (status != KeyStatus::revoked) require_ok(info.Env(), status);
  return Napi::Boolean::New(info.Env(), status == KeyStatus::revoked);
}

Napi::Value equals(const Napi::CallbackInfo& info) {
  bool equal = false;
  require_ok(info.Env(), key_equals(handle_arg(info, 0, "a"), handle_arg(info, 1, "b"), equal));
  return Napi::Boolean::New(info.Env(), equal);
}

Block mac_of(const Napi::CallbackInfo& info) {
  const std::string label = string_arg(info, 1, "label");
  // A zero byte separates the label from the context in the KDF.
  if (label.find('\0') != std::string::npos) throw_invalid(info.Env(), "label must not contain a zero byte");
  const auto context = bytes_arg(info, 2, "context");
  const auto data = bytes_arg(info, 3, "data");
  Block mac;
  require_ok(info.Env(), key_mac(kernel(), handle_arg(info, 0, "key"),
                                 {reinterpret_cast<const uint8_t*>(label.data()), label.size()}, context, data, mac));
  return mac;
}

Napi::Value mac(const Napi::CallbackInfo& info) {
  const Block result = mac_of(info);
  return Napi::Buffer<uint8_t>::Copy(info.Env(), result.data(), result.size());
}

Napi::Value mac_verify(const Napi::CallbackInfo& info) {
  const auto expected = bytes_arg(info, 4, "mac", kTagBytes);
  return Napi::Boolean::New(info.Env(), equal_constant_time(mac_of(info), expected));
}

Napi::Value wrap(const Napi::CallbackInfo& info) {
  const auto aad = bytes_arg(info, 2, "aad");
  std::array<uint8_t, kWrappedBytes> blob;
  require_ok(info.Env(), key_wrap(kernel(), handle_arg(info, 0, "kek"), handle_arg(info, 1, "key"), aad, blob));
  return Napi::Buffer<uint8_t>::Copy(info.Env(), blob.data(), blob.size());
}

Napi::Value unwrap(const Napi::CallbackInfo& info) {
  const auto blob = bytes_arg(info, 1, "blob");
  const auto aad = bytes_arg(info, 2, "aad");
  if (blob.size() != kWrappedBytes) require_ok(info.Env(), OpStatus::not_authentic);
  KeyHandle handle = 0;
  require_ok(info.Env(),
             key_unwrap(kernel(), handle_arg(info, 0, "kek"), blob.first<kWrappedBytes>(), aad, handle));
  return handle_value(info.Env(), handle);
}

Napi::Value segment_derive(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto suite = static_cast<Suite>(int_arg(info, 1, "suite", 0, 2));
  const auto context = bytes_arg(info, 2, "context", kSegmentContextBytes);
  if (context[0] != static_cast<uint8_t>(suite)) throw_invalid(env, "the context must start with the suite");
  if (info[0].IsNull() != (suite == Suite::none)) {
    throw_invalid(env, "key must be null for the suite none, and a handle for every other");
  }
  std::optional<KeyHandle> parent;
  if (suite != Suite::none) parent = handle_arg(info, 0, "key");
  SegmentKeyHandle handle = 0;
  require_ok(env, segment_key_derive(kernel(), parent, suite, context, handle));
  return handle_value(env, handle);
}

Napi::Value segment_release(const Napi::CallbackInfo& info) {
  require_ok(info.Env(), segment_key_release(handle_arg(info, 0, "segmentKey")));
  return info.Env().Undefined();
}

const Registrar registrar([](Napi::Env env, Napi::Object exports) {
  export_function(env, exports, "secureMemoryRequireLocked", require_locked);
  export_function(env, exports, "secureMemory", secure_memory);
  export_function(env, exports, "keyGenerate", generate);
  export_function(env, exports, "keyImport", import_bytes);
  export_function(env, exports, "keyImportBase64", import_base64);
  export_function(env, exports, "keyExportBase64", export_base64);
  export_function(env, exports, "scrubStack", scrub_stack);
  export_function(env, exports, "keyRetain", retain);
  export_function(env, exports, "keyRelease", release);
  export_function(env, exports, "keyRevoke", revoke);
  export_function(env, exports, "keyIsRevoked", is_revoked);
  export_function(env, exports, "keyEquals", equals);
  export_function(env, exports, "keyMac", mac);
  export_function(env, exports, "keyMacVerify", mac_verify);
  export_function(env, exports, "keyWrap", wrap);
  export_function(env, exports, "keyUnwrap", unwrap);
  export_function(env, exports, "segmentKeyDerive", segment_derive);
  export_function(env, exports, "segmentKeyRelease", segment_release);
});

}  // namespace
}  // namespace sealbd
