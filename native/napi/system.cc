// crc32c, wipe, randomFill, fileLock, fileAllocate, fileReload, processLimits, heapTrim.
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <napi.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <limits>

#include "io/crc32c.h"
#include "keys/random.h"
#include "keys/wipe.h"
#include "napi/args.h"
#include "napi/registry.h"

namespace sealbd {
namespace {

std::string errno_name(int number) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 32)
  if (const char* const name = strerrorname_np(number)) return name;
#endif
  return "ERRNO_" + std::to_string(number);
}

Napi::Error errno_error(Napi::Env env, const char* call, int number) {
  const std::string name = errno_name(number);
  return error_with_code(env, name.c_str(), name + ": " + call + ": " + strerror(number));
}

Napi::Value crc32c_value(const Napi::CallbackInfo& info) {
  const auto bytes = bytes_arg(info, 0, "bytes");
  const auto seed = static_cast<uint32_t>(int_arg(info, 1, "seed", 0, UINT32_MAX));
  return Napi::Number::New(info.Env(), crc32c(bytes, seed));
}

Napi::Value wipe_value(const Napi::CallbackInfo& info) {
  wipe(bytes_arg(info, 0, "bytes"));
  return info.Env().Undefined();
}

Napi::Value random_value(const Napi::CallbackInfo& info) {
  if (!random_fill(bytes_arg(info, 0, "bytes"))) throw errno_error(info.Env(), "getrandom", errno);
  return info.Env().Undefined();
}

int fd_arg(const Napi::CallbackInfo& info) { return static_cast<int>(int_arg(info, 0, "fd", 0, INT32_MAX)); }

Napi::Value file_lock(const Napi::CallbackInfo& info) {
  const int fd = fd_arg(info);
  for (;;) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(info.Env(), true);
    if (errno == EWOULDBLOCK) return Napi::Boolean::New(info.Env(), false);
    if (errno != EINTR) throw errno_error(info.Env(), "flock", errno);
  }
}

// A system call on a thread of its own. Deletes itself when it has settled its promise.
class FileWork : public Napi::AsyncWorker {
 public:
  FileWork(Napi::Env env, const char* name, int fd) : Napi::AsyncWorker(env, name), deferred_(env), fd_(fd) {}

  Napi::Promise start() {
    Queue();
    return deferred_.Promise();
  }

 protected:
  int fd() const { return fd_; }
  void failed(const char* call, int number) {
    call_ = call;
    error_ = number;
  }

  void OnOK() override {
    if (error_ == 0) {
      deferred_.Resolve(Env().Undefined());
    } else {
      deferred_.Reject(errno_error(Env(), call_, error_).Value());
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  int fd_;
  const char* call_ = "";
  int error_ = 0;
};

class Allocation : public FileWork {
 public:
  Allocation(Napi::Env env, int fd, off_t bytes) : FileWork(env, "sealbd.fileAllocate", fd), bytes_(bytes) {}

 protected:
  void Execute() override {
    while (fallocate(fd(), 0, 0, bytes_) != 0) {
      if (errno != EINTR) return failed("fallocate", errno);
    }
  }

 private:
  off_t bytes_;
};

class Reload : public FileWork {
 public:
  Reload(Napi::Env env, int fd) : FileWork(env, "sealbd.fileReload", fd) {}

 protected:
  void Execute() override {
    if (fdatasync(fd()) != 0) return failed("fdatasync", errno);
    // Only pages that are clean are dropped: those of which an earlier sync failed, too.
    if (const int error = posix_fadvise(fd(), 0, 0, POSIX_FADV_DONTNEED); error != 0) failed("posix_fadvise", error);
  }
};

Napi::Value file_allocate(const Napi::CallbackInfo& info) {
  const int fd = fd_arg(info);
  const int64_t bytes = int_arg(info, 1, "bytes", 1, static_cast<int64_t>(kMaxSafeInteger));
  return (new Allocation(info.Env(), fd, bytes))->start();
}

Napi::Value file_reload(const Napi::CallbackInfo& info) { return (new Reload(info.Env(), fd_arg(info)))->start(); }

// Raises a soft limit to the hard one, and says what is in force.
double raise_limit(Napi::Env env, __rlimit_resource resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) throw errno_error(env, "getrlimit", errno);
  if (limit.rlim_cur != limit.rlim_max) {
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(resource, &limit) != 0) limit.rlim_cur = before;
  }
  return limit.rlim_cur == RLIM_INFINITY ? std::numeric_limits<double>::infinity()
                                         : static_cast<double>(limit.rlim_cur);
}

Napi::Value process_limits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("openFiles", Napi::Number::New(env, raise_limit(env, RLIMIT_NOFILE)));
  result.Set("lockedBytes", Napi::Number::New(env, raise_limit(env, RLIMIT_MEMLOCK)));
  return result;
}

Napi::Value heap_trim(const Napi::CallbackInfo& info) {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
  return info.Env().Undefined();
}

const Registrar registrar([](Napi::Env env, Napi::Object exports) {
  export_function(env, exports, "crc32c", crc32c_value);
  export_function(env, exports, "wipe", wipe_value);
  export_function(env, exports, "randomFill", random_value);
  export_function(env, exports, "fileLock", file_lock);
  export_function(env, exports, "fileAllocate", file_allocate);
  export_function(env, exports, "fileReload", file_reload);
  export_function(env, exports, "processLimits", process_limits);
  export_function(env, exports, "heapTrim", heap_trim);
});

}  // namespace
}  // namespace sealbd
