// Non-blocking stream sockets. Every function returns a value >= 0, or -errno.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace sealbd {

// `address` is a numeric IPv4 or IPv6 address (a scope id after '%' is accepted); port 0 takes a free one.
int listen_tcp(const std::string& address, uint16_t port, int backlog);

// The file's identity is kept by the caller, so that closing removes this socket and no successor's.
struct UnixFile {
  uint64_t device = 0;
  uint64_t inode = 0;
};

// Binds `path` with permission bits `mode`. A socket that is there already is replaced only if nobody listens
// on it (-EADDRINUSE otherwise); anything else that is there is left alone.
int listen_unix(const std::string& path, uint32_t mode, int backlog, UnixFile& file);

// Removes the socket file if it is still the one that listen_unix made.
void unlink_unix(const std::string& path, const UnixFile& file);

// Makes a listening stream socket that somebody else opened fit for the poller: non-blocking, close-on-exec. -EINVAL
// where `fd` is none.
int take_listener(int fd);

// Takes one connection: non-blocking, close-on-exec, no Nagle, buffers of `buffer_bytes` where allowed.
int accept_stream(int listener, int buffer_bytes);

// "HOST:PORT", "[HOST]:PORT" or "unix:PATH" of this end or of the peer; empty where unknown.
std::string local_name(int fd);
std::string peer_name(int fd);

// Sends one datagram to a unix socket; a path that begins with '@' is of the abstract namespace.
int notify(const std::string& path, const std::string& text);

// The user of the process at the other end of a unix socket, as it was when that process connected.
std::int64_t peer_uid(int fd);

// Bytes received, 0 at the end of the stream.
std::int64_t receive(int fd, std::span<uint8_t> into);
// Bytes that the kernel took. Never raises SIGPIPE.
std::int64_t send_pieces(int fd, std::span<const iovec> pieces);

// Closes the sending side: the peer reads the end of the stream after what is queued.
int finish(int fd);

}  // namespace sealbd
