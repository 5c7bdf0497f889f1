// arenaCreate, arenaFree, arenaStats.
#include "io/arena.h"

#include <napi.h>

#include <unordered_map>

#include "napi/args.h"
#include "napi/registry.h"

namespace sealbd {
namespace {

// What an environment needs to take the ArrayBuffer of one of its arenas away. It lives as long as the buffer's
// backing store: `finalize` is the only place that deletes it.
struct Owner {
  uint32_t id;
  napi_ref buffer;  // weak
};

// The arenas that this thread's environment created, by id.
thread_local std::unordered_map<uint32_t, Owner*> owned;

// Runs on the owner's thread once its ArrayBuffer is gone: detached by arenaFree, collected, or left to the end of
// the environment. In the last two cases the arena goes with it.
void finalize(napi_env env, void*, void* hint) {
  auto* const owner = static_cast<Owner*>(hint);
  const auto entry = owned.find(owner->id);
  if (entry != owned.end() && entry->second == owner) {
    owned.erase(entry);
    arena_destroy(owner->id);
  }
  if (owner->buffer != nullptr) napi_delete_reference(env, owner->buffer);
  delete owner;
}

Napi::Value arena_create(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int64_t size = int_arg(info, 0, "sizeBytes", 1, int64_t{1} << 32);
  const auto arena = arena_map(static_cast<size_t>(size));
  if (!arena) throw error_with_code(env, "ENOMEM", "no memory for an arena of " + std::to_string(size) + " bytes");
  auto* const owner = new Owner{arena->id, nullptr};
  napi_value buffer = nullptr;
  if (napi_create_external_arraybuffer(env, arena->bytes.data(), arena->bytes.size(), finalize, owner, &buffer) !=
      napi_ok) {
    arena_destroy(arena->id);
    delete owner;
    throw error_with_code(env, "ENOMEM", "the JavaScript engine refused an external ArrayBuffer");
  }
  owned.emplace(arena->id, owner);
  if (napi_create_reference(env, buffer, 0, &owner->buffer) != napi_ok) {
    throw error_with_code(env, "ENOMEM", "no reference to an arena's ArrayBuffer");
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("id", Napi::Number::New(env, arena->id));
  result.Set("buffer", Napi::Value(env, buffer));
  return result;
}

Napi::Value arena_free(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto id = static_cast<uint32_t>(int_arg(info, 0, "id", 1, UINT32_MAX));
  const auto entry = owned.find(id);
  if (entry == owned.end()) throw_invalid(env, "arena " + std::to_string(id) + " is not an arena of this thread");
  Owner* const owner = entry->second;
  owned.erase(entry);
  napi_value buffer = nullptr;
  if (owner->buffer != nullptr && napi_get_reference_value(env, owner->buffer, &buffer) == napi_ok &&
      buffer != nullptr && napi_detach_arraybuffer(env, buffer) != napi_ok) {
    owned.emplace(id, owner);
    throw_invalid(env, "the ArrayBuffer of arena " + std::to_string(id) + " cannot be detached");
  }
  arena_destroy(id);
  return env.Undefined();
}

Napi::Value stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const ArenaStats now = arena_stats();
  Napi::Object result = Napi::Object::New(env);
  result.Set("arenas", Napi::Number::New(env, static_cast<double>(now.arenas)));
  result.Set("bytes", Napi::Number::New(env, static_cast<double>(now.bytes)));
  return result;
}

const Registrar registrar([](Napi::Env env, Napi::Object exports) {
  export_function(env, exports, "arenaCreate", arena_create);
  export_function(env, exports, "arenaFree", arena_free);
  export_function(env, exports, "arenaStats", stats);
});

}  // namespace
}  // namespace sealbd
