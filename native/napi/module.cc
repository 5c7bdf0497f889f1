// The addon's entry point.
#include "napi/registry.h"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  for (const auto fn : sealbd::registry()) fn(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(sealbd, init)
