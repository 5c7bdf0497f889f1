#include "io/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sealbd {
namespace {

constexpr int KEEPALIVE_IDLE_SECONDS = 60;
constexpr int KEEPALIVE_INTERVAL_SECONDS = 15;
constexpr int KEEPALIVE_PROBES = 4;

union AnyAddress {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
  sockaddr_un local;
  sockaddr_storage storage;
};

class ScopedFd {
 public:
  explicit ScopedFd(int fd) : fd_(fd) {}
  ScopedFd(const ScopedFd&) = delete;
  ScopedFd& operator=(const ScopedFd&) = delete;
  ~ScopedFd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_;
};

void set_option(int fd, int level, int name, int value) {
  // Each of these tunes; none is needed for correctness, and a kernel may refuse some.
  (void)::setsockopt(fd, level, name, &value, sizeof(value));
}

socklen_t parse_address(const std::string& text, uint16_t port, AnyAddress& out) {
  std::memset(&out, 0, sizeof(out));
  if (::inet_pton(AF_INET, text.c_str(), &out.v4.sin_addr) == 1) {
    out.v4.sin_family = AF_INET;
    out.v4.sin_port = htons(port);
    return sizeof(out.v4);
  }
  const auto percent = text.find('%');
  const std::string host = text.substr(0, percent);
  if (::inet_pton(AF_INET6, host.c_str(), &out.v6.sin6_addr) != 1) return 0;
  if (percent != std::string::npos) {
    out.v6.sin6_scope_id = ::if_nametoindex(text.c_str() + percent + 1);
    if (out.v6.sin6_scope_id == 0) return 0;
  }
  out.v6.sin6_family = AF_INET6;
  out.v6.sin6_port = htons(port);
  return sizeof(out.v6);
}

bool unix_address(const std::string& path, sockaddr_un& out) {
  std::memset(&out, 0, sizeof(out));
  out.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(out.sun_path)) return false;
  std::memcpy(out.sun_path, path.data(), path.size());
  return true;
}

// True if a connection would be refused: the file was left behind by a process that is gone.
bool is_stale_socket(const std::string& path, const sockaddr_un& address) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
  const ScopedFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (probe.get() < 0) return false;
  const int rc = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  return rc != 0 && errno == ECONNREFUSED;
}

std::string name_of(const AnyAddress& address, socklen_t length) {
  char host[INET6_ADDRSTRLEN] = {};
  if (address.any.sa_family == AF_INET) {
    ::inet_ntop(AF_INET, &address.v4.sin_addr, host, sizeof(host));
    return std::string(host) + ":" + std::to_string(ntohs(address.v4.sin_port));
  }
  if (address.any.sa_family == AF_INET6) {
    ::inet_ntop(AF_INET6, &address.v6.sin6_addr, host, sizeof(host));
    return std::string("[").append(host).append("]:").append(std::to_string(ntohs(address.v6.sin6_port)));
  }
  if (address.any.sa_family == AF_UNIX) {
    const size_t header = offsetof(sockaddr_un, sun_path);
    const size_t size = length > header ? ::strnlen(address.local.sun_path, length - header) : 0;
    return "unix:" + std::string(address.local.sun_path, size);
  }
  return {};
}

}  // namespace

int listen_tcp(const std::string& address, uint16_t port, int backlog) {
  AnyAddress name;
  const socklen_t length = parse_address(address, port, name);
  if (length == 0) return -EINVAL;
  ScopedFd fd(::socket(name.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return -errno;
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (name.any.sa_family == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (::bind(fd.get(), &name.any, length) != 0) return -errno;
  if (::listen(fd.get(), backlog) != 0) return -errno;
  return fd.release();
}

int listen_unix(const std::string& path, uint32_t mode, int backlog, UnixFile& file) {
  sockaddr_un name;
  if (!unix_address(path, name)) return -ENAMETOOLONG;
  ScopedFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return -errno;
  // The mode of an unbound socket is the mode that bind gives the file, so it is never wider, not even briefly.
  if (::fchmod(fd.get(), mode) != 0) return -errno;
  const auto* address = reinterpret_cast<const sockaddr*>(&name);
  if (::bind(fd.get(), address, sizeof(name)) != 0) {
    if (errno != EADDRINUSE) return -errno;
    if (!is_stale_socket(path, name)) return -EADDRINUSE;
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return -errno;
    if (::bind(fd.get(), address, sizeof(name)) != 0) return -errno;
  }
  struct stat info {};
  int error = 0;
  // The umask may have taken bits away.
  if (::chmod(path.c_str(), mode) != 0 || ::lstat(path.c_str(), &info) != 0) error = errno;
  file = UnixFile{info.st_dev, info.st_ino};
  if (error == 0 && ::listen(fd.get(), backlog) != 0) error = errno;
  if (error != 0) {
    ::unlink(path.c_str());
    return -error;
  }
  return fd.release();
}

int take_listener(int fd) {
  int listening = 0;
  int type = 0;
  socklen_t size = sizeof(listening);
  if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0) return -errno;
  size = sizeof(type);
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) return -errno;
  if (listening == 0 || type != SOCK_STREAM) return -EINVAL;
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return -errno;
  return fd;
}

int notify(const std::string& path, const std::string& text) {
  sockaddr_un name;
  if (!unix_address(path, name)) return -ENAMETOOLONG;
  if (path[0] == '@') name.sun_path[0] = '\0';
  const ScopedFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return -errno;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const auto* address = reinterpret_cast<const sockaddr*>(&name);
  return ::sendto(fd.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT, address, length) < 0 ? -errno : 0;
}

void unlink_unix(const std::string& path, const UnixFile& file) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return;
  if (info.st_dev == file.device && info.st_ino == file.inode) ::unlink(path.c_str());
}

int accept_stream(int listener, int buffer_bytes) {
  int fd;
  do {
    fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return -errno;
  int domain = 0;
  socklen_t size = sizeof(domain);
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain != AF_UNIX) {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    // A peer that is gone without a word is noticed within two minutes, not after the kernel's two hours.
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
  }
  set_option(fd, SOL_SOCKET, SO_SNDBUF, buffer_bytes);
  set_option(fd, SOL_SOCKET, SO_RCVBUF, buffer_bytes);
  return fd;
}

std::string local_name(int fd) {
  AnyAddress name;
  socklen_t length = sizeof(name);
  if (::getsockname(fd, &name.any, &length) != 0) return {};
  return name_of(name, length);
}

std::string peer_name(int fd) {
  AnyAddress name;
  socklen_t length = sizeof(name);
  if (::getpeername(fd, &name.any, &length) != 0) return {};
  return name_of(name, length);
}

std::int64_t peer_uid(int fd) {
  // The kernel answers for any kind of socket; only of a unix one it knows the peer.
  int domain = 0;
  socklen_t size = sizeof(domain);
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return -errno;
  if (domain != AF_UNIX) return -ENOTSUP;
  ucred peer{};
  size = sizeof(peer);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return -errno;
  return peer.uid;
}

std::int64_t receive(int fd, std::span<uint8_t> into) {
  for (;;) {
    const ssize_t count = ::recv(fd, into.data(), into.size(), MSG_DONTWAIT);
    if (count >= 0) return count;
    if (errno != EINTR) return -errno;
  }
}

std::int64_t send_pieces(int fd, std::span<const iovec> pieces) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  for (;;) {
    const ssize_t count = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) return count;
    if (errno != EINTR) return -errno;
  }
}

int finish(int fd) { return ::shutdown(fd, SHUT_WR) == 0 ? 0 : -errno; }

}  // namespace sealbd
