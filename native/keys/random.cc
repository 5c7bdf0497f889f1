#include "keys/random.h"

#include <errno.h>
#include <sys/random.h>

namespace sealbd {

bool random_fill(std::span<uint8_t> out) {
  while (!out.empty()) {
    const ssize_t got = getrandom(out.data(), out.size(), 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    out = out.subspan(static_cast<size_t>(got));
  }
  return true;
}

}  // namespace sealbd
