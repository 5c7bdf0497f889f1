// secretCreate, secretRelease: ArrayBuffers for the bytes of a secret on its way, in the memory that keys have.
#include <napi.h>

#include <unordered_set>

#include "keys/secure_memory.h"
#include "keys/wipe.h"
#include "napi/args.h"
#include "napi/registry.h"

namespace sealbd {
namespace {

constexpr int64_t kSecretBytesMax = int64_t{1} << 24;

// It lives as long as the backing store of its ArrayBuffer: `finalize` is the only place that deletes it.
struct SecretMemory {
  uint8_t* bytes;
  size_t size;
};

// Where those that this thread's environment holds are: what is detached must be one of them, not a pool of Node's.
thread_local std::unordered_set<const void*> held;

// Runs on the owner's thread once nothing refers to the bytes any more, which may be some time after secretRelease: Node
// may still have them in hand.
void finalize(napi_env, void*, void* hint) {
  auto* const memory = static_cast<SecretMemory*>(hint);
  held.erase(memory->bytes);
  secure_unmap(memory->bytes, memory->size);
  delete memory;
}

Napi::Value secret_create(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto size = static_cast<size_t>(int_arg(info, 0, "sizeBytes", 1, kSecretBytesMax));
  uint8_t* const bytes = secure_map(size);
  if (bytes == nullptr) {
    throw error_with_code(env, "KEY_MEMORY", "no locked memory for a secret of " + std::to_string(size) + " bytes");
  }
  auto* const memory = new SecretMemory{bytes, size};
  napi_value buffer = nullptr;
  if (napi_create_external_arraybuffer(env, bytes, size, finalize, memory, &buffer) != napi_ok) {
    secure_unmap(bytes, size);
    delete memory;
    throw error_with_code(env, "KEY_MEMORY", "the JavaScript engine refused an external ArrayBuffer");
  }
  held.insert(bytes);
  return Napi::Value(env, buffer);
}

Napi::Value secret_release(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsArrayBuffer()) throw_invalid(env, "buffer must be an ArrayBuffer");
  const auto buffer = info[0].As<Napi::ArrayBuffer>();
  if (buffer.IsDetached()) return env.Undefined();
  void* bytes = nullptr;
  size_t size = 0;
  if (napi_get_arraybuffer_info(env, buffer, &bytes, &size) != napi_ok || !held.contains(bytes)) {
    throw_invalid(env, "buffer is not of secretCreate, in this thread");
  }
  wipe(bytes, size);
  if (napi_detach_arraybuffer(env, buffer) != napi_ok) throw_invalid(env, "buffer cannot be detached");
  return env.Undefined();
}

const Registrar registrar([](Napi::Env env, Napi::Object exports) {
  export_function(env, exports, "secretCreate", secret_create);
  export_function(env, exports, "secretRelease", secret_release);
});

}  // namespace
}  // namespace sealbd
