#include "keys/scrub.h"

#include <cstddef>
#include <cstdint>

#include "keys/wipe.h"

namespace sealbd {
namespace {

// The deepest operation, wrapping with the portable kernel, reaches 3050 bytes down (GCC 12, -O3); saving all vector
// registers there would take another 2700. The test "stacks hold no keys" notices where that is not enough.
constexpr size_t kStackBytes = 6144;

// What the runtime calls between its event loop and JavaScript reaches deeper: TLS reads into 16 KiB of stack.
constexpr size_t kRuntimeStackBytes = 65536;

template <size_t bytes>
__attribute__((noinline)) void scrub_stack() {
  uint8_t below[bytes];
  wipe(below, sizeof below);
}

#if defined(__x86_64__)

#define SEALBD_VECTORS_0_15 \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
      "xmm14", "xmm15"

void clear_sse() {
  __asm__ __volatile__(
      "pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\tpxor %%xmm2, %%xmm2\n\tpxor %%xmm3, %%xmm3\n\t"
      "pxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\tpxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\t"
      "pxor %%xmm8, %%xmm8\n\tpxor %%xmm9, %%xmm9\n\tpxor %%xmm10, %%xmm10\n\tpxor %%xmm11, %%xmm11\n\t"
      "pxor %%xmm12, %%xmm12\n\tpxor %%xmm13, %%xmm13\n\tpxor %%xmm14, %%xmm14\n\tpxor %%xmm15, %%xmm15"
      :
      :
      : SEALBD_VECTORS_0_15);
}

__attribute__((target("avx"))) void clear_avx() {
  __asm__ __volatile__("vzeroall" : : : SEALBD_VECTORS_0_15);
}

// vzeroall knows the first 16 registers only.
__attribute__((target("avx512f"))) void clear_avx512() {
  __asm__ __volatile__(
      "vzeroall\n\t"
      "vpxord %%zmm16, %%zmm16, %%zmm16\n\tvpxord %%zmm17, %%zmm17, %%zmm17\n\t"
      "vpxord %%zmm18, %%zmm18, %%zmm18\n\tvpxord %%zmm19, %%zmm19, %%zmm19\n\t"
      "vpxord %%zmm20, %%zmm20, %%zmm20\n\tvpxord %%zmm21, %%zmm21, %%zmm21\n\t"
      "vpxord %%zmm22, %%zmm22, %%zmm22\n\tvpxord %%zmm23, %%zmm23, %%zmm23\n\t"
      "vpxord %%zmm24, %%zmm24, %%zmm24\n\tvpxord %%zmm25, %%zmm25, %%zmm25\n\t"
      "vpxord %%zmm26, %%zmm26, %%zmm26\n\tvpxord %%zmm27, %%zmm27, %%zmm27\n\t"
      "vpxord %%zmm28, %%zmm28, %%zmm28\n\tvpxord %%zmm29, %%zmm29, %%zmm29\n\t"
      "vpxord %%zmm30, %%zmm30, %%zmm30\n\tvpxord %%zmm31, %%zmm31, %%zmm31"
      :
      :
      : SEALBD_VECTORS_0_15, "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
}

// Not those of the kernel in use alone: the C library copies keys with the widest vectors that there are. That the
// processor supports a feature includes here that the system saves its registers.
void clear_vectors() {
  if (__builtin_cpu_supports("avx512f")) {
    clear_avx512();
  } else if (__builtin_cpu_supports("avx")) {
    clear_avx();
  } else {
    clear_sse();
  }
}

#else

// The portable kernel computes in general registers, and the next functions overwrite those.
void clear_vectors() {}

#endif

}  // namespace

void scrub() {
  scrub_stack<kStackBytes>();
  clear_vectors();
}

void scrub_runtime() {
  scrub_stack<kRuntimeStackBytes>();
  clear_vectors();
}

}  // namespace sealbd
