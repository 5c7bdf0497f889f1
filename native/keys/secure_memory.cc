#include "keys/secure_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>

#include "keys/wipe.h"

namespace sealbd {
namespace {

std::atomic<bool> lock_required{false};
std::atomic<bool> all_locked{true};
std::atomic<size_t> mapped{0};

size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

size_t in_pages(size_t bytes) { return (bytes + page_bytes() - 1) / page_bytes() * page_bytes(); }

// A child of fork(2) must not see keys: its copy reads as zeros, or, on kernels before 4.14, is not there at all.
bool hide_from_children(void* at, size_t size) {
  return madvise(at, size, MADV_WIPEONFORK) == 0 || madvise(at, size, MADV_DONTFORK) == 0;
}

}  // namespace

void secure_memory_require_locked(bool required) { lock_required.store(required); }

uint8_t* secure_map(size_t bytes) {
  const size_t page = page_bytes();
  const size_t size = in_pages(bytes);
  // The whole range starts out inaccessible; the middle is opened, the two guard pages never are.
  void* const whole = mmap(nullptr, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  auto* const middle = static_cast<uint8_t*>(whole) + page;
  if (mprotect(middle, size, PROT_READ | PROT_WRITE) != 0 || madvise(middle, size, MADV_DONTDUMP) != 0 ||
      !hide_from_children(middle, size)) {
    munmap(whole, size + 2 * page);
    return nullptr;
  }
  if (mlock(middle, size) != 0) {
    if (lock_required.load()) {
      munmap(whole, size + 2 * page);
      return nullptr;
    }
    all_locked.store(false);
  }
  mapped.fetch_add(size);
  return middle;
}

void secure_unmap(uint8_t* memory, size_t bytes) {
  const size_t page = page_bytes();
  const size_t size = in_pages(bytes);
  wipe(memory, size);
  munmap(memory - page, size + 2 * page);
  mapped.fetch_sub(size);
}

SecureMemoryState secure_memory_state() { return {all_locked.load(), mapped.load()}; }

}  // namespace sealbd
