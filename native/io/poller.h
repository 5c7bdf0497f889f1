// One epoll set per environment, watched by one uv_poll_t on Node's loop. It owns sockets by handle and retains
// no memory of the caller: receive and send use the bytes that they are given, during the call.
//
// A handle is generation * 2^20 + index. A closed handle stays invalid for good, so an event or a call that is
// late never reaches the socket that took its place.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/socket.h"
#include "io/uv_min.h"

namespace sealbd {

constexpr uint32_t READY_READ = 1;
constexpr uint32_t READY_WRITE = 2;
// The peer is gone, or the socket failed. Reading gives what is left, then the end or the error.
constexpr uint32_t READY_HANGUP = 4;

struct Ready {
  uint64_t socket;
  uint32_t mask;
};

class Poller {
 public:
  // True where what was ready is dealt with and its client, with nothing else under way, may well ask again at once.
  using OnReady = bool (*)(void* context, std::span<const Ready> ready);

  // Null where the kernel or the loop refuses; errno says why.
  static Poller* create(uv_loop_t* loop, OnReady on_ready, void* context);

  // Takes `fd` over. Interest is a mask of READY_READ and READY_WRITE; with none the socket is not watched.
  std::optional<uint64_t> adopt(int fd);
  // The file that closing the handle must remove.
  void set_unix_file(uint64_t socket, std::string path, UnixFile file);
  int set_interest(uint64_t socket, uint32_t interest);
  // The descriptor of a handle, or -1 for one that is closed or was never given out.
  int fd_of(uint64_t socket) const;
  bool close(uint64_t socket);
  // Forgets the handle and gives its descriptor away, still open; -1 where there is none. Not for listeners: the
  // file of a unix socket would stay.
  int release(uint64_t socket);
  uint32_t open_sockets() const { return open_; }

  // Closes every socket and the watch on the loop, then calls `done` and deletes itself.
  void shutdown(void (*done)(void* argument), void* argument);

 private:
  struct Slot {
    int fd = -1;
    uint32_t generation = 0;
    uint32_t interest = 0;
    std::string unix_path;
    UnixFile unix_file;
  };

  Poller(OnReady on_ready, void* context) : on_ready_(on_ready), context_(context) {}
  ~Poller() = default;
  static void on_poll(uv_poll_t* handle, int status, int events);
  static void on_closed(uv_handle_t* handle);
  void dispatch();
  // What is ready now: nothing, or the result of the callback.
  std::optional<bool> handle_ready();
  // The same, looking again and again for a short time.
  std::optional<bool> handle_soon();
  Slot* find(uint64_t socket);
  const Slot* find(uint64_t socket) const;

  OnReady on_ready_;
  void* context_;
  int epoll_ = -1;
  uv_poll_t* watch_ = nullptr;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  uint32_t open_ = 0;
  uint32_t spins_to_skip_ = 0;
  uint32_t spins_skipped_ = 0;
  void (*done_)(void*) = nullptr;
  void* done_argument_ = nullptr;
};

}  // namespace sealbd
