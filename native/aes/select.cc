// The table of kernels, the selector and its override, and what is common to all kernels.
#include <cstdlib>
#include <cstring>
#include <string>

#include "aes/kernel.h"
#include "keys/wipe.h"

namespace sealbd {
namespace {

#if defined(__x86_64__)
constexpr std::array<const Kernel*, 4> kKernels{&kernel_vaes512, &kernel_vaes256, &kernel_aesni, &kernel_portable};
#else
constexpr std::array<const Kernel*, 1> kKernels{&kernel_portable};
#endif

struct Selection {
  const Kernel* kernel = nullptr;
  std::string error;
};

Selection select() {
  const char* const forced = std::getenv("SEALBD_CPU");
  if (forced == nullptr || *forced == '\0') {
    for (const Kernel* candidate : kKernels) {
      if (candidate->supported()) return {candidate, {}};
    }
  }
  const Kernel* const named = find_kernel(forced);
  if (named != nullptr && named->supported()) return {named, {}};
  std::string choices;
  for (const Kernel* candidate : kKernels) {
    if (!candidate->supported()) continue;
    choices += choices.empty() ? candidate->name : std::string(", ") + candidate->name;
  }
  return {nullptr, std::string("SEALBD_CPU=") + forced +
                       (named == nullptr ? ": no such kernel" : ": this processor does not support it") +
                       "; choose one of: " + choices};
}

const Selection& selection() {
  static const Selection selected = select();
  return selected;
}

}  // namespace

std::span<const Kernel* const> kernels() { return kKernels; }

const Kernel* find_kernel(const char* name) {
  for (const Kernel* candidate : kKernels) {
    if (std::strcmp(candidate->name, name) == 0) return candidate;
  }
  return nullptr;
}

const Kernel* select_kernel(const char** error) {
  *error = selection().error.c_str();
  return selection().kernel;
}

const Kernel& kernel() {
  static const Kernel& selected = *selection().kernel;
  return selected;
}

void ctr128(const Kernel& with, const AesKey& key, const uint8_t* counter, const uint8_t* src, uint8_t* dst,
            size_t size) {
  Block block;
  std::memcpy(block.data(), counter, kAesBlock);
  while (size > 0) {
    // Up to the place where the low 32 bits wrap, ctr32 counts just as a 128-bit counter does.
    uint64_t low = 0;
    for (size_t i = 12; i < 16; ++i) low = low << 8 | block[i];
    const uint64_t until_wrap = ((uint64_t{1} << 32) - low) * kAesBlock;
    const size_t part = size < until_wrap ? size : static_cast<size_t>(until_wrap);
    with.ctr32(key, block.data(), src, dst, part);
    size -= part;
    src += part;
    dst += part;
    std::memset(block.data() + 12, 0, 4);
    for (size_t i = 12; i-- > 0;) {
      if (++block[i] != 0) break;
    }
  }
}

bool gcm_open(const Kernel& with, const GcmKey& key, const uint8_t* iv, std::span<const uint8_t> aad,
              const uint8_t* src, uint8_t* dst, size_t size, const uint8_t* tag) {
  Block computed;
  with.gcm_open(key, iv, aad.data(), aad.size(), src, dst, size, computed.data());
  if (equal_constant_time(computed, {tag, kTagBytes})) return true;
  wipe(dst, size);
  return false;
}

}  // namespace sealbd
