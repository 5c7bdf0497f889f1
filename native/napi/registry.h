// How a file of this folder adds its functions to the addon: a static Registrar, run once for each environment
// (the main thread and every worker).
#pragma once

#include <napi.h>

#include <vector>

namespace sealbd {

using RegisterFn = void (*)(Napi::Env, Napi::Object);

inline std::vector<RegisterFn>& registry() {
  static std::vector<RegisterFn> fns;
  return fns;
}

struct Registrar {
  explicit Registrar(RegisterFn fn) { registry().push_back(fn); }
};

}  // namespace sealbd
