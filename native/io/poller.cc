#include "io/poller.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace sealbd {
namespace {

constexpr uint32_t INDEX_BITS = 20;
constexpr uint32_t INDEX_MASK = (1u << INDEX_BITS) - 1;
constexpr size_t READY_MAX = 256;

// How long to look for the next request; it comes 10 to 30 us after the reply. A look in vain is not repeated before
// so many further requests were answered, twice as many after the next: so a slow client costs next to nothing.
constexpr uint64_t SPIN_NS = 50'000;
constexpr int SPIN_ROUNDS_MAX = 8;
constexpr uint32_t SPIN_SKIP_MIN = 16;
constexpr uint32_t SPIN_SKIP_MAX = 4096;

uv_handle_t* as_handle(uv_poll_t* watch) { return reinterpret_cast<uv_handle_t*>(watch); }

uint32_t to_epoll(uint32_t interest) {
  return ((interest & READY_READ) != 0 ? EPOLLIN : 0u) | ((interest & READY_WRITE) != 0 ? EPOLLOUT : 0u);
}

uint32_t from_epoll(uint32_t events) {
  uint32_t mask = 0;
  if ((events & EPOLLIN) != 0) mask |= READY_READ;
  if ((events & EPOLLOUT) != 0) mask |= READY_WRITE;
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) mask |= READY_HANGUP;
  return mask;
}

}  // namespace

Poller* Poller::create(uv_loop_t* loop, OnReady on_ready, void* context) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) return nullptr;
  auto* watch = static_cast<uv_poll_t*>(std::calloc(1, uv_handle_size(UV_POLL)));
  const int rc = watch == nullptr ? -ENOMEM : uv_poll_init(loop, watch, epoll);
  if (rc != 0) {
    std::free(watch);
    ::close(epoll);
    errno = -rc;
    return nullptr;
  }
  auto* poller = new Poller(on_ready, context);
  poller->epoll_ = epoll;
  poller->watch_ = watch;
  uv_handle_set_data(as_handle(watch), poller);
  // Only sockets keep the process alive, not the watch itself.
  uv_unref(as_handle(watch));
  uv_poll_start(watch, UV_READABLE, &Poller::on_poll);
  return poller;
}

std::optional<uint64_t> Poller::adopt(int fd) {
  if (free_.empty() && slots_.size() > INDEX_MASK) {
    ::close(fd);
    return std::nullopt;
  }
  if (free_.empty()) {
    slots_.emplace_back();
    free_.push_back(static_cast<uint32_t>(slots_.size() - 1));
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot.fd = fd;
  slot.generation += 1;
  slot.interest = 0;
  if (open_++ == 0) uv_ref(as_handle(watch_));
  return (static_cast<uint64_t>(slot.generation) << INDEX_BITS) | index;
}

void Poller::set_unix_file(uint64_t socket, std::string path, UnixFile file) {
  if (Slot* slot = find(socket)) {
    slot->unix_path = std::move(path);
    slot->unix_file = file;
  }
}

const Poller::Slot* Poller::find(uint64_t socket) const {
  const auto index = static_cast<uint32_t>(socket & INDEX_MASK);
  if (index >= slots_.size()) return nullptr;
  const Slot& slot = slots_[index];
  return slot.fd >= 0 && slot.generation == socket >> INDEX_BITS ? &slot : nullptr;
}

Poller::Slot* Poller::find(uint64_t socket) { return const_cast<Slot*>(std::as_const(*this).find(socket)); }

int Poller::fd_of(uint64_t socket) const {
  const Slot* slot = find(socket);
  return slot == nullptr ? -1 : slot->fd;
}

int Poller::set_interest(uint64_t socket, uint32_t interest) {
  Slot* slot = find(socket);
  if (slot == nullptr) return -EBADF;
  if (slot->interest == interest) return 0;
  // A socket without interest leaves the set: epoll reports a hang-up whether asked or not, and a paused
  // connection whose peer is gone would spin.
  const int operation = interest == 0 ? EPOLL_CTL_DEL : slot->interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  epoll_event event{};
  event.events = to_epoll(interest);
  event.data.u64 = socket;
  if (::epoll_ctl(epoll_, operation, slot->fd, &event) != 0) return -errno;
  slot->interest = interest;
  return 0;
}

bool Poller::close(uint64_t socket) {
  Slot* slot = find(socket);
  if (slot == nullptr) return false;
  if (!slot->unix_path.empty()) unlink_unix(slot->unix_path, slot->unix_file);
  slot->unix_path.clear();
  // Closing the only descriptor of a socket takes it out of the epoll set.
  ::close(std::exchange(slot->fd, -1));
  free_.push_back(static_cast<uint32_t>(socket & INDEX_MASK));
  if (--open_ == 0) uv_unref(as_handle(watch_));
  return true;
}

int Poller::release(uint64_t socket) {
  Slot* slot = find(socket);
  // What goes on elsewhere must leave the set: closing is not what takes it out.
  if (slot == nullptr || !slot->unix_path.empty() || set_interest(socket, 0) != 0) return -1;
  const int fd = std::exchange(slot->fd, -1);
  free_.push_back(static_cast<uint32_t>(socket & INDEX_MASK));
  if (--open_ == 0) uv_unref(as_handle(watch_));
  return fd;
}

void Poller::on_poll(uv_poll_t* handle, int status, int) {
  if (status == 0) static_cast<Poller*>(uv_handle_get_data(reinterpret_cast<uv_handle_t*>(handle)))->dispatch();
}

void Poller::dispatch() {
  // A client that has one request under way sends the next one within microseconds of the reply: looking for it is
  // cheaper than sleeping and being woken. The loop's other handles get their turn after a few rounds.
  bool soon = handle_ready().value_or(false);
  for (int round = 0; soon && round < SPIN_ROUNDS_MAX; round++) {
    if (spins_skipped_ < spins_to_skip_) {
      spins_skipped_++;
      return;
    }
    const std::optional<bool> handled = handle_soon();
    spins_skipped_ = 0;
    spins_to_skip_ = handled ? 0 : std::clamp(2 * spins_to_skip_, SPIN_SKIP_MIN, SPIN_SKIP_MAX);
    soon = handled.value_or(false);
  }
}

std::optional<bool> Poller::handle_soon() {
  const uint64_t end = uv_hrtime() + SPIN_NS;
  do {
    if (const std::optional<bool> handled = handle_ready()) return handled;
  } while (uv_hrtime() < end);
  return std::nullopt;
}

std::optional<bool> Poller::handle_ready() {
  std::array<epoll_event, READY_MAX> events;
  const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 0);
  std::array<Ready, READY_MAX> ready;
  size_t used = 0;
  for (int i = 0; i < count; i++) {
    const uint64_t socket = events[i].data.u64;
    if (find(socket) != nullptr) ready[used++] = Ready{socket, from_epoll(events[i].events)};
  }
  if (used == 0) return std::nullopt;
  return on_ready_(context_, std::span<const Ready>(ready.data(), used));
}

void Poller::shutdown(void (*done)(void* argument), void* argument) {
  done_ = done;
  done_argument_ = argument;
  for (size_t index = 0; index < slots_.size(); index++) {
    const Slot& slot = slots_[index];
    if (slot.fd >= 0) close((static_cast<uint64_t>(slot.generation) << INDEX_BITS) | index);
  }
  uv_poll_stop(watch_);
  uv_close(as_handle(watch_), &Poller::on_closed);
}

void Poller::on_closed(uv_handle_t* handle) {
  auto* poller = static_cast<Poller*>(uv_handle_get_data(handle));
  ::close(poller->epoll_);
  std::free(handle);
  const auto done = poller->done_;
  void* argument = poller->done_argument_;
  delete poller;
  done(argument);
}

}  // namespace sealbd
