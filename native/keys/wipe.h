// Erasing secrets and comparing them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace sealbd {

// memset that the compiler may not drop: the empty asm claims to read the memory afterwards.
inline void wipe(void* bytes, size_t size) {
  if (size == 0) return;
  std::memset(bytes, 0, size);
  __asm__ __volatile__("" : : "r"(bytes) : "memory");
}

inline void wipe(std::span<uint8_t> bytes) { wipe(bytes.data(), bytes.size()); }

// A value that is erased when it leaves scope.
template <class T>
struct Secret {
  static_assert(std::is_trivially_copyable_v<T>);
  T value{};

  Secret() = default;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { wipe(&value, sizeof value); }
};

// Takes the same time wherever the first difference is. The lengths are not secret.
inline bool equal_constant_time(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  if (a.size() != b.size()) return false;
  volatile uint8_t difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference = difference | (a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace sealbd
