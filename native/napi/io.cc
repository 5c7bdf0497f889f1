// Sockets for TypeScript. Every function returns a number >= 0, or -errno; the script turns that into an error.
// State belongs to one environment: the poller, its callback, and the array in which events are handed over.
#include <cerrno>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "io/arena.h"
#include "io/poller.h"
#include "io/socket.h"
#include "napi/registry.h"

namespace sealbd {
namespace {

constexpr size_t PIECES_MAX = 1024;  // IOV_MAX
constexpr double HANDLE_MAX = 9007199254740991.0;

struct IoEnv {
  explicit IoEnv(napi_env e) : env(e) {}
  napi_env env;
  Poller* poller = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  Napi::FunctionReference on_ready;
  Napi::Reference<Napi::Float64Array> events;
  std::optional<Napi::AsyncContext> context;
};

// Arguments of a call, checked one by one. A wrong one throws a TypeError and makes `ok` false.
class Call {
 public:
  Call(napi_env env, napi_callback_info info) : env_(env) {
    void* data = nullptr;
    napi_get_cb_info(env, info, &count_, args_, nullptr, &data);
    io = static_cast<IoEnv*>(data);
  }
  double number(size_t i, double max) {
    double value = -1;
    if (i >= count_ || napi_get_value_double(env_, args_[i], &value) != napi_ok || !(value >= 0) || value > max ||
        value != std::floor(value)) {
      fail();
      return 0;
    }
    return value;
  }
  std::string text(size_t i) {
    size_t size = 0;
    if (i >= count_ || napi_get_value_string_utf8(env_, args_[i], nullptr, 0, &size) != napi_ok) {
      fail();
      return {};
    }
    std::string value(size, '\0');
    napi_get_value_string_utf8(env_, args_[i], value.data(), size + 1, &size);
    if (value.find('\0') != std::string::npos) fail();
    return value;
  }
  std::span<const double> doubles(size_t i) {
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    if (i >= count_ ||
        napi_get_typedarray_info(env_, args_[i], &type, &length, &data, nullptr, nullptr) != napi_ok ||
        type != napi_float64_array) {
      fail();
      return {};
    }
    return {static_cast<const double*>(data), length};
  }
  napi_value at(size_t i) const { return args_[i]; }
  size_t count() const { return count_; }
  void fail() {
    if (ok) napi_throw_type_error(env_, "EINVAL", "An argument of a socket call has the wrong type or range");
    ok = false;
  }
  napi_value result(double value) const {
    napi_value out = nullptr;
    napi_create_double(env_, value, &out);
    return out;
  }
  napi_value result(const std::string& value) const {
    napi_value out = nullptr;
    napi_create_string_utf8(env_, value.data(), value.size(), &out);
    return out;
  }

  IoEnv* io;
  bool ok = true;

 private:
  napi_env env_;
  size_t count_ = 4;
  napi_value args_[4] = {};
};

bool on_ready(void* argument, std::span<const Ready> ready) {
  auto* io = static_cast<IoEnv*>(argument);
  const Napi::Env env(io->env);
  const Napi::HandleScope scope(env);
  Napi::Float64Array events = io->events.Value();
  const size_t count = std::min(ready.size(), events.ElementLength() / 2);
  // What does not fit is reported again: the set is level-triggered.
  for (size_t i = 0; i < count; i++) {
    events[2 * i] = static_cast<double>(ready[i].socket);
    events[2 * i + 1] = ready[i].mask;
  }
  try {
    const Napi::Value soon =
        io->on_ready.MakeCallback(env.Global(), {Napi::Number::New(env, static_cast<double>(count))}, *io->context);
    return soon.IsBoolean() && soon.As<Napi::Boolean>().Value();
  } catch (const Napi::Error& error) {
    napi_fatal_exception(io->env, error.Value());
    return false;
  }
}

void on_environment_end(napi_async_cleanup_hook_handle hook, void* argument) {
  auto* io = static_cast<IoEnv*>(argument);
  io->on_ready.Reset();
  io->events.Reset();
  io->context.reset();
  Poller* poller = io->poller;
  io->poller = nullptr;
  poller->shutdown([](void* handle) { napi_remove_async_cleanup_hook(static_cast<napi_async_cleanup_hook_handle>(handle)); },
                   hook);
}

// ioStart(events: Float64Array, onReady: (count) => boolean | void). A second call replaces both.
napi_value io_start(napi_env raw, napi_callback_info info) {
  Call call(raw, info);
  const Napi::Env env(raw);
  if (call.count() < 2 || !Napi::Value(raw, call.at(0)).IsTypedArray() || !Napi::Value(raw, call.at(1)).IsFunction()) {
    call.fail();
    return nullptr;
  }
  if (call.doubles(0).size() < 2 || !call.ok) {
    call.fail();
    return nullptr;
  }
  IoEnv* io = call.io;
  if (io->poller == nullptr) {
    uv_loop_s* loop = nullptr;
    if (napi_get_uv_event_loop(raw, &loop) != napi_ok) return call.result(-ENOSYS);
    io->poller = Poller::create(loop, &on_ready, io);
    if (io->poller == nullptr) return call.result(-errno);
    io->context.emplace(env, "sealbd.sockets");
    napi_add_async_cleanup_hook(raw, &on_environment_end, io, &io->cleanup);
  }
  io->events = Napi::Persistent(Napi::Float64Array(raw, call.at(0)));
  io->on_ready = Napi::Persistent(Napi::Function(raw, call.at(1)));
  return call.result(0);
}

double adopt(IoEnv* io, int fd, uint64_t* handle = nullptr) {
  if (fd < 0) return fd;
  const auto socket = io->poller->adopt(fd);
  if (!socket) return -EMFILE;
  if (handle != nullptr) *handle = *socket;
  return static_cast<double>(*socket);
}

// ioListenTcp(address, port, backlog)
napi_value io_listen_tcp(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const std::string address = call.text(0);
  const auto port = static_cast<uint16_t>(call.number(1, 65535));
  const auto backlog = static_cast<int>(call.number(2, 65535));
  if (!call.ok) return nullptr;
  if (call.io->poller == nullptr) return call.result(-EINVAL);
  return call.result(adopt(call.io, listen_tcp(address, port, backlog)));
}

// ioListenUnix(path, mode, backlog)
napi_value io_listen_unix(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const std::string path = call.text(0);
  const auto mode = static_cast<uint32_t>(call.number(1, 0777));
  const auto backlog = static_cast<int>(call.number(2, 65535));
  if (!call.ok) return nullptr;
  if (call.io->poller == nullptr) return call.result(-EINVAL);
  UnixFile file;
  uint64_t handle = 0;
  const double result = adopt(call.io, listen_unix(path, mode, backlog, file), &handle);
  if (result >= 0) call.io->poller->set_unix_file(handle, path, file);
  return call.result(result);
}

int descriptor(Call& call) {
  const auto handle = static_cast<uint64_t>(call.number(0, HANDLE_MAX));
  return call.ok && call.io->poller != nullptr ? call.io->poller->fd_of(handle) : -1;
}

// ioAccept(listener, bufferBytes)
napi_value io_accept(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const int fd = descriptor(call);
  const auto buffer_bytes = static_cast<int>(call.number(1, 1 << 30));
  if (!call.ok) return nullptr;
  if (fd < 0) return call.result(-EBADF);
  return call.result(adopt(call.io, accept_stream(fd, buffer_bytes)));
}

// ioName(socket, peer): "HOST:PORT", "[HOST]:PORT" or "unix:PATH"
napi_value io_name(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const int fd = descriptor(call);
  const bool peer = call.number(1, 1) == 1;
  if (!call.ok) return nullptr;
  return call.result(fd < 0 ? std::string() : peer ? peer_name(fd) : local_name(fd));
}

// ioReceive(socket, ref, length): bytes, 0 at the end
napi_value io_receive(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const int fd = descriptor(call);
  const double ref = call.number(1, HANDLE_MAX);
  const auto length = static_cast<size_t>(call.number(2, 4294967296.0));
  if (!call.ok) return nullptr;
  if (fd < 0) return call.result(-EBADF);
  const auto into = arena_span(ref, length);
  // An empty read would look like the end of the stream.
  if (!into || length == 0) return call.result(-EFAULT);
  return call.result(static_cast<double>(receive(fd, *into)));
}

// ioSend(socket, pieces: Float64Array of ref, length, ref, length, ..., count): bytes taken
napi_value io_send(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const int fd = descriptor(call);
  const auto pieces = call.doubles(1);
  const auto count = static_cast<size_t>(call.number(2, PIECES_MAX));
  if (!call.ok) return nullptr;
  if (fd < 0) return call.result(-EBADF);
  if (count * 2 > pieces.size()) return call.result(-EINVAL);
  iovec vectors[PIECES_MAX];
  for (size_t i = 0; i < count; i++) {
    const double length = pieces[2 * i + 1];
    if (!(length >= 0 && length <= 4294967296.0)) return call.result(-EFAULT);
    const auto bytes = arena_span(pieces[2 * i], static_cast<size_t>(length));
    if (!bytes) return call.result(-EFAULT);
    vectors[i] = iovec{bytes->data(), bytes->size()};
  }
  return call.result(static_cast<double>(send_pieces(fd, std::span<const iovec>(vectors, count))));
}

// ioInterest(socket, mask)
napi_value io_interest(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto handle = static_cast<uint64_t>(call.number(0, HANDLE_MAX));
  const auto mask = static_cast<uint32_t>(call.number(1, READY_READ | READY_WRITE));
  if (!call.ok) return nullptr;
  if (call.io->poller == nullptr) return call.result(-EBADF);
  return call.result(call.io->poller->set_interest(handle, mask));
}

// ioFinish(socket): no more will be sent; the peer reads the end after what is queued
napi_value io_finish(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const int fd = descriptor(call);
  if (!call.ok) return nullptr;
  return call.result(fd < 0 ? -EBADF : finish(fd));
}

// ioClose(socket)
napi_value io_close(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto handle = static_cast<uint64_t>(call.number(0, HANDLE_MAX));
  if (!call.ok) return nullptr;
  return call.result(call.io->poller != nullptr && call.io->poller->close(handle) ? 0 : -EBADF);
}

// ioRelease(socket): the descriptor, which is the caller's to close from then on
napi_value io_release(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto handle = static_cast<uint64_t>(call.number(0, HANDLE_MAX));
  if (!call.ok) return nullptr;
  const int fd = call.io->poller == nullptr ? -1 : call.io->poller->release(handle);
  return call.result(fd < 0 ? -EBADF : fd);
}

// ioListenOn(fd): a listener that was handed over; the descriptor belongs to the handle from then on
napi_value io_listen_on(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const auto fd = static_cast<int>(call.number(0, 2147483647.0));
  if (!call.ok) return nullptr;
  if (call.io->poller == nullptr) return call.result(-EINVAL);
  return call.result(adopt(call.io, take_listener(fd)));
}

// ioNotify(path, text): one datagram to a unix socket
napi_value io_notify(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const std::string path = call.text(0);
  const std::string text = call.text(1);
  if (!call.ok) return nullptr;
  return call.result(notify(path, text));
}

// ioPeerUid(fd): of any descriptor, not of a handle
napi_value io_peer_uid(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const double fd = call.number(0, 2147483647.0);
  if (!call.ok) return nullptr;
  return call.result(static_cast<double>(peer_uid(static_cast<int>(fd))));
}

// ioSockets(): how many are open in this environment
napi_value io_sockets(napi_env env, napi_callback_info info) {
  Call call(env, info);
  return call.result(call.io->poller == nullptr ? 0 : call.io->poller->open_sockets());
}

const Registrar io_functions([](Napi::Env env, Napi::Object exports) {
  auto* io = new IoEnv(env);
  // The last hook to run deletes the state; the poller's own hook has closed it by then.
  env.AddCleanupHook([](IoEnv* state) { delete state; }, io);
  const struct {
    const char* name;
    napi_callback function;
  } functions[] = {{"ioStart", io_start},       {"ioListenTcp", io_listen_tcp}, {"ioListenUnix", io_listen_unix},
                   {"ioAccept", io_accept},     {"ioName", io_name},            {"ioReceive", io_receive},
                   {"ioSend", io_send},         {"ioInterest", io_interest},    {"ioFinish", io_finish},
                   {"ioClose", io_close},       {"ioRelease", io_release},      {"ioPeerUid", io_peer_uid},
                   {"ioListenOn", io_listen_on}, {"ioNotify", io_notify},        {"ioSockets", io_sockets}};
  for (const auto& [name, function] : functions) {
    napi_value value = nullptr;
    NAPI_THROW_IF_FAILED_VOID(env, napi_create_function(env, name, NAPI_AUTO_LENGTH, function, io, &value));
    exports.Set(name, value);
  }
});

}  // namespace
}  // namespace sealbd
