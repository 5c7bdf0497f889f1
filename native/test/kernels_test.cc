#include <cstring>
#include <random>
#include <vector>

#include "aes/cmac.h"
#include "aes/kernel.h"
#include "test/check.h"

namespace sealbd::test {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes random_bytes(std::mt19937& random, size_t size) {
  Bytes bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// Heap buffers of the exact size: an access beyond them is the address sanitizer's to find.
void agree_on(const Kernel& with, std::mt19937& random, size_t size) {
  const Bytes key = random_bytes(random, kKeyBytes);
  const Bytes iv = random_bytes(random, kAesBlock);
  const Bytes aad = random_bytes(random, random() % 40);
  const Bytes src = random_bytes(random, size);
  Bytes expected(size);
  Bytes got(size);
  Block expected_tag;
  Block tag;
  GcmKey reference;
  kernel_portable.expand(key.data(), reference.aes);
  kernel_portable.gcm_init(reference);
  GcmKey own;
  with.expand(key.data(), own.aes);
  with.gcm_init(own);
  CHECK(std::memcmp(&own.aes, &reference.aes, sizeof(AesKey)) == 0);

  kernel_portable.gcm_seal(reference, iv.data(), aad.data(), aad.size(), src.data(), expected.data(), size,
                           expected_tag.data());
  with.gcm_seal(own, iv.data(), aad.data(), aad.size(), src.data(), got.data(), size, tag.data());
  CHECK(got == expected && tag == expected_tag);
  CHECK(gcm_open(with, own, iv.data(), aad, got.data(), got.data(), size, tag.data()));
  CHECK(got == src);
  tag[3] ^= 1;
  CHECK(!gcm_open(with, own, iv.data(), aad, expected.data(), got.data(), size, tag.data()));
  CHECK(got == Bytes(size));

  ctr128(kernel_portable, reference.aes, iv.data(), src.data(), expected.data(), size);
  ctr128(with, own.aes, iv.data(), src.data(), got.data(), size);
  CHECK(got == expected);

  CmacKey mac_key;
  CmacKey reference_mac_key;
  cmac_init(with, key.data(), mac_key);
  cmac_init(kernel_portable, key.data(), reference_mac_key);
  CHECK(cmac(with, mac_key, {src, aad}) == cmac(kernel_portable, reference_mac_key, {src, aad}));
}

}  // namespace

void kernels_agree() {
  std::mt19937 random(20260101);
  for (const Kernel* with : kernels()) {
    if (!with->supported() || with == &kernel_portable) continue;
    for (size_t size = 0; size < 160; ++size) agree_on(*with, random, size);
    for (const size_t size : {511, 512, 513, 1024, 1039, 4096, 4100}) agree_on(*with, random, size);
  }
}

}  // namespace sealbd::test
