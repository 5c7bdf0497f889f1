// How fast this core can do the instructions that AES-256 needs, without loads, stores or dependencies between blocks:
// no kernel of that instruction set can be faster. Prints GB/s for CTR (14 rounds for each 64 bytes) and for GCM (the
// same and four carry-less multiplications), the best of several runs.
#include <immintrin.h>

#include <chrono>
#include <cstdio>

namespace {

constexpr int kVectors = 12;  // independent, so that latency does not count
constexpr int kRepeats = 200'000;
constexpr int kRuns = 15;
constexpr double kBytes = 64.0 * kVectors * kRepeats;

#define SEALBD_ROUND                                                                                               \
  "vaesenc %%zmm30, %%zmm0, %%zmm0\n vaesenc %%zmm30, %%zmm1, %%zmm1\n vaesenc %%zmm30, %%zmm2, %%zmm2\n"          \
  "vaesenc %%zmm30, %%zmm3, %%zmm3\n vaesenc %%zmm30, %%zmm4, %%zmm4\n vaesenc %%zmm30, %%zmm5, %%zmm5\n"          \
  "vaesenc %%zmm30, %%zmm6, %%zmm6\n vaesenc %%zmm30, %%zmm7, %%zmm7\n vaesenc %%zmm30, %%zmm8, %%zmm8\n"          \
  "vaesenc %%zmm30, %%zmm9, %%zmm9\n vaesenc %%zmm30, %%zmm10, %%zmm10\n vaesenc %%zmm30, %%zmm11, %%zmm11\n"
#define SEALBD_MULTIPLY                                                                                            \
  "vpclmulqdq $0, %%zmm30, %%zmm0, %%zmm16\n vpclmulqdq $0, %%zmm30, %%zmm1, %%zmm17\n"                            \
  "vpclmulqdq $0, %%zmm30, %%zmm2, %%zmm18\n vpclmulqdq $0, %%zmm30, %%zmm3, %%zmm19\n"                            \
  "vpclmulqdq $0, %%zmm30, %%zmm4, %%zmm20\n vpclmulqdq $0, %%zmm30, %%zmm5, %%zmm21\n"                            \
  "vpclmulqdq $0, %%zmm30, %%zmm6, %%zmm22\n vpclmulqdq $0, %%zmm30, %%zmm7, %%zmm23\n"                            \
  "vpclmulqdq $0, %%zmm30, %%zmm8, %%zmm24\n vpclmulqdq $0, %%zmm30, %%zmm9, %%zmm25\n"                            \
  "vpclmulqdq $0, %%zmm30, %%zmm10, %%zmm26\n vpclmulqdq $0, %%zmm30, %%zmm11, %%zmm27\n"
#define SEALBD_CLOBBERED                                                                                           \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm16",       \
      "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27"

void ctr() {
  for (int i = 0; i < kRepeats; ++i) {
    __asm__ volatile(".rept 14\n" SEALBD_ROUND ".endr\n" : : : SEALBD_CLOBBERED);
  }
}

void gcm() {
  for (int i = 0; i < kRepeats; ++i) {
    __asm__ volatile(".rept 4\n" SEALBD_ROUND SEALBD_ROUND SEALBD_ROUND SEALBD_MULTIPLY ".endr\n" SEALBD_ROUND
                         SEALBD_ROUND
                     :
                     :
                     : SEALBD_CLOBBERED);
  }
}

double gb_per_second(void (*work)()) {
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = best > kBytes / seconds / 1e9 ? best : kBytes / seconds / 1e9;
  }
  return best;
}

}  // namespace

int main() { std::printf("%.3f %.3f\n", gb_per_second(ctr), gb_per_second(gcm)); }
