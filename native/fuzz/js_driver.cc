// fuzzStart, fuzzFinish, fuzzCounters, fuzzCompare: libFuzzer for JavaScript, in the addon that is fuzzed.
//
// It runs on a thread of its own and gives each input to a function on Node's thread, which says when it is done; so a
// target may be asynchronous, and one that hangs is noticed. The counters of instrumented JavaScript are an ArrayBuffer of
// bytes that libFuzzer reads as it reads those of code that clang instrumented.
#include <napi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "napi/args.h"
#include "napi/registry.h"

extern "C" int LLVMFuzzerRunDriver(int* argc, char*** argv, int (*callback)(const uint8_t*, size_t));
extern "C" void __sanitizer_cov_8bit_counters_init(uint8_t* start, uint8_t* stop);
extern "C" void __sanitizer_cov_pcs_init(const uintptr_t* start, const uintptr_t* end);
extern "C" void __sanitizer_cov_trace_cmp4(uint32_t a, uint32_t b);
extern "C" void __sanitizer_cov_trace_cmp8(uint64_t a, uint64_t b);

namespace sealbd::fuzz {
namespace {

constexpr size_t kCountersMax = 65536;
constexpr auto kPatience = std::chrono::seconds(20);
// An input begins where no typed array wants it, and has other bytes around it: whoever forgets the offset, or reads on,
// sees them.
constexpr size_t kBefore = 3;
constexpr size_t kAfter = 5;
constexpr uint8_t kAround = 0xa5;

std::array<uint8_t, kCountersMax> counters;
// libFuzzer wants a place for each counter: its number, and no flags.
std::array<uintptr_t, 2 * kCountersMax> places;

enum class State { idle, running, done, failed };

struct Exchange {
  std::mutex mutex;
  std::condition_variable changed;
  State state = State::idle;
  const uint8_t* data = nullptr;
  size_t size = 0;
};

Exchange exchange;
Napi::ThreadSafeFunction target;

void set_state(State state) {
  const std::lock_guard lock(exchange.mutex);
  exchange.state = state;
  exchange.changed.notify_all();
}

void call_target(Napi::Env env, Napi::Function function) {
  const Napi::HandleScope scope(env);
  const size_t size = exchange.size;
  Napi::ArrayBuffer whole = Napi::ArrayBuffer::New(env, kBefore + size + kAfter);
  auto* const bytes = static_cast<uint8_t*>(whole.Data());
  std::fill_n(bytes, whole.ByteLength(), kAround);
  std::copy_n(exchange.data, size, bytes + kBefore);
  function.Call({Napi::Uint8Array::New(env, size, whole, kBefore)});
}

// On libFuzzer's thread. To abort is how an input is called a finding: libFuzzer writes it to a file.
int run_one(const uint8_t* data, size_t size) {
  {
    const std::lock_guard lock(exchange.mutex);
    exchange.data = data;
    exchange.size = size;
    exchange.state = State::running;
  }
  if (target.BlockingCall(call_target) != napi_ok) std::abort();
  std::unique_lock lock(exchange.mutex);
  const bool ended = exchange.changed.wait_for(lock, kPatience, [] { return exchange.state != State::running; });
  if (!ended) std::fprintf(stderr, "fuzz: an input takes longer than %lld s\n", static_cast<long long>(kPatience.count()));
  if (!ended || exchange.state == State::failed) std::abort();
  return 0;
}

// fuzzStart(args, target): target(data) is called for each input; fuzzFinish(ok) ends it, then or later. Once all are
// through, the process ends.
Napi::Value start(const Napi::CallbackInfo& info) {
  static std::vector<std::string> args;
  const auto given = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < given.Length(); ++i) args.push_back(given.Get(i).ToString().Utf8Value());
  target = Napi::ThreadSafeFunction::New(info.Env(), info[1].As<Napi::Function>(), "fuzz", 0, 1);
  // libFuzzer ends with exit(), which would tear Node down beneath its own thread.
  on_exit([](int status, void*) {
    std::fflush(nullptr);
    _exit(status);
  }, nullptr);
  std::thread([] {
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    int argc = static_cast<int>(args.size());
    char** at = argv.data();
    std::exit(LLVMFuzzerRunDriver(&argc, &at, run_one));
  }).detach();
  return info.Env().Undefined();
}

Napi::Value finish(const Napi::CallbackInfo& info) {
  set_state(info[0].ToBoolean().Value() ? State::done : State::failed);
  return info.Env().Undefined();
}

// fuzzCounters(n): their n bytes.
Napi::Value count(const Napi::CallbackInfo& info) {
  const size_t size = info[0].ToNumber().Uint32Value();
  if (size > counters.size()) throw Napi::Error::New(info.Env(), "too many counters: raise kCountersMax");
  for (size_t i = 0; i < size; ++i) places[2 * i] = i + 1;
  __sanitizer_cov_8bit_counters_init(counters.data(), counters.data() + size);
  __sanitizer_cov_pcs_init(places.data(), places.data() + 2 * size);
  return Napi::ArrayBuffer::New(info.Env(), counters.data(), size);
}

// fuzzCompare(a, b): two integers that were compared; what they are is tried in the next inputs.
Napi::Value compare(const Napi::CallbackInfo& info) {
  const auto a = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
  const auto b = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value());
  if ((a | b) >> 32 == 0) {
    __sanitizer_cov_trace_cmp4(static_cast<uint32_t>(a), static_cast<uint32_t>(b));
  } else {
    __sanitizer_cov_trace_cmp8(a, b);
  }
  return info.Env().Undefined();
}

const Registrar registrar([](Napi::Env env, Napi::Object exports) {
  export_function(env, exports, "fuzzStart", start);
  export_function(env, exports, "fuzzFinish", finish);
  export_function(env, exports, "fuzzCounters", count);
  export_function(env, exports, "fuzzCompare", compare);
});

}  // namespace
}  // namespace sealbd::fuzz
