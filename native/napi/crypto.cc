// cpuKernels, cpuSelected, primitives.
#include <napi.h>

#include <cstring>

#include "aes/cmac.h"
#include "aes/kernel.h"
#include "keys/scrub.h"
#include "keys/wipe.h"
#include "napi/args.h"
#include "napi/registry.h"

namespace sealbd {
namespace {

const Kernel& kernel_arg(const Napi::CallbackInfo& info) {
  const std::string name = string_arg(info, 0, "kernel");
  const Kernel* const found = find_kernel(name.c_str());
  if (found == nullptr) throw_invalid(info.Env(), "no kernel is named " + name);
  if (!found->supported()) throw_invalid(info.Env(), "this processor does not support the kernel " + name);
  return *found;
}

// A kernel works in place or out of place; anything between would read what it has just written.
void require_same_or_apart(const Napi::CallbackInfo& info, std::span<const uint8_t> src, std::span<uint8_t> dst) {
  if (src.size() != dst.size()) throw_invalid(info.Env(), "src and dst must have the same size");
  const auto from = reinterpret_cast<uintptr_t>(src.data());
  const auto to = reinterpret_cast<uintptr_t>(dst.data());
  if (from == to || from + src.size() <= to || to + dst.size() <= from) return;
  throw_invalid(info.Env(), "src and dst must be the same bytes or not overlap");
}

Napi::Buffer<uint8_t> buffer_of(Napi::Env env, std::span<const uint8_t> bytes) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes.data(), bytes.size());
}

Napi::Value ctr(const Napi::CallbackInfo& info) {
  const ScrubOnExit scrubbed;
  const Kernel& with = kernel_arg(info);
  const auto key = bytes_arg(info, 1, "key", kKeyBytes);
  const auto counter = bytes_arg(info, 2, "counterBlock", kAesBlock);
  const auto src = bytes_arg(info, 3, "src");
  const auto dst = bytes_arg(info, 4, "dst");
  require_same_or_apart(info, src, dst);
  Secret<AesKey> expanded;
  with.expand(key.data(), expanded.value);
  ctr128(with, expanded.value, counter.data(), src.data(), dst.data(), src.size());
  return info.Env().Undefined();
}

Napi::Value gcm_seal_primitive(const Napi::CallbackInfo& info) {
  const ScrubOnExit scrubbed;
  const Kernel& with = kernel_arg(info);
  const auto key = bytes_arg(info, 1, "key", kKeyBytes);
  const auto iv = bytes_arg(info, 2, "iv", kIvBytes);
  const auto aad = bytes_arg(info, 3, "aad");
  const auto src = bytes_arg(info, 4, "src");
  const auto dst = bytes_arg(info, 5, "dst");
  require_same_or_apart(info, src, dst);
  Secret<GcmKey> expanded;
  with.expand(key.data(), expanded.value.aes);
  with.gcm_init(expanded.value);
  Block tag;
  with.gcm_seal(expanded.value, iv.data(), aad.data(), aad.size(), src.data(), dst.data(), src.size(), tag.data());
  return buffer_of(info.Env(), tag);
}

Napi::Value gcm_open_primitive(const Napi::CallbackInfo& info) {
  const ScrubOnExit scrubbed;
  const Kernel& with = kernel_arg(info);
  const auto key = bytes_arg(info, 1, "key", kKeyBytes);
  const auto iv = bytes_arg(info, 2, "iv", kIvBytes);
  const auto aad = bytes_arg(info, 3, "aad");
  const auto tag = bytes_arg(info, 4, "tag", kTagBytes);
  const auto src = bytes_arg(info, 5, "src");
  const auto dst = bytes_arg(info, 6, "dst");
  require_same_or_apart(info, src, dst);
  Secret<GcmKey> expanded;
  with.expand(key.data(), expanded.value.aes);
  with.gcm_init(expanded.value);
  const bool authentic =
      gcm_open(with, expanded.value, iv.data(), aad, src.data(), dst.data(), src.size(), tag.data());
  return Napi::Boolean::New(info.Env(), authentic);
}

Napi::Value cmac_primitive(const Napi::CallbackInfo& info) {
  const ScrubOnExit scrubbed;
  const Kernel& with = kernel_arg(info);
  const auto key = bytes_arg(info, 1, "key", kKeyBytes);
  const auto message = bytes_arg(info, 2, "message");
  Secret<CmacKey> prepared;
  cmac_init(with, key.data(), prepared.value);
  const Block mac = cmac(with, prepared.value, {message});
  return buffer_of(info.Env(), mac);
}

Napi::Value kdf_primitive(const Napi::CallbackInfo& info) {
  const ScrubOnExit scrubbed;
  constexpr int64_t kBitsMax = int64_t{8} << 20;
  const Kernel& with = kernel_arg(info);
  const auto key = bytes_arg(info, 1, "key", kKeyBytes);
  const auto fixed_input = bytes_arg(info, 2, "fixedInput");
  const int64_t bits = int_arg(info, 3, "lengthBits", 8, kBitsMax);
  if (bits % 8 != 0) throw_invalid(info.Env(), "lengthBits must be a multiple of 8");
  auto out = Napi::Buffer<uint8_t>::New(info.Env(), static_cast<size_t>(bits / 8));
  Secret<CmacKey> prepared;
  cmac_init(with, key.data(), prepared.value);
  kdf(with, prepared.value, {fixed_input}, {out.Data(), out.Length()});
  return out;
}

Napi::Value cpu_kernels(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array list = Napi::Array::New(env);
  for (const Kernel* each : kernels()) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", Napi::String::New(env, each->name));
    entry.Set("supported", Napi::Boolean::New(env, each->supported()));
    list.Set(list.Length(), entry);
  }
  return list;
}

Napi::Value cpu_selected(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), kernel().name); }

const Registrar registrar([](Napi::Env env, Napi::Object exports) {
  const char* error = nullptr;
  if (select_kernel(&error) == nullptr) throw error_with_code(env, "EINVAL", error);
  export_function(env, exports, "cpuKernels", cpu_kernels);
  export_function(env, exports, "cpuSelected", cpu_selected);
  Napi::Object primitives = Napi::Object::New(env);
  export_function(env, primitives, "ctr", ctr);
  export_function(env, primitives, "gcmSeal", gcm_seal_primitive);
  export_function(env, primitives, "gcmOpen", gcm_open_primitive);
  export_function(env, primitives, "cmac", cmac_primitive);
  export_function(env, primitives, "kdf", kdf_primitive);
  exports.Set("primitives", primitives);
});

}  // namespace
}  // namespace sealbd
