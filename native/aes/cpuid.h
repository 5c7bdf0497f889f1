// What the processor and the operating system support, asked with CPUID and XGETBV.
#pragma once

namespace sealbd {

struct CpuFeatures {
  bool sse42;     // with SSSE3 and SSE4.1
  bool aesni;     // with PCLMULQDQ and SSE4.1
  bool vaes256;   // VAES, VPCLMULQDQ and AVX2, with YMM state enabled
  bool vaes512;   // the same with AVX-512 F, BW, VL and ZMM state enabled
};

const CpuFeatures& cpu_features();

}  // namespace sealbd
