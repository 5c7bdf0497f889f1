// Every kernel against the portable one, and CRC32C against the definition: any length, any address, in place and not.
#include <array>

#include "aes/cmac.h"
#include "aes/kernel.h"
#include "fuzz/input.h"
#include "io/crc32c.h"

namespace sealbd::fuzz {
namespace {

constexpr size_t kSizeMax = 5000;
constexpr size_t kAadMax = 300;
constexpr size_t kKdfBytesMax = 80;

// `size` bytes that begin `offset` bytes into memory that ends with them: what reads or writes beyond is seen.
class Placed {
 public:
  Placed(const Bytes& bytes, size_t offset) : memory_(offset + bytes.size()), offset_(offset) {
    std::copy(bytes.begin(), bytes.end(), memory_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  uint8_t* data() { return memory_.data() + offset_; }
  Bytes value() const { return {memory_.begin() + static_cast<std::ptrdiff_t>(offset_), memory_.end()}; }

 private:
  Bytes memory_;
  size_t offset_;
};

struct Case {
  Key key;
  Block iv;
  Bytes aad;
  Bytes text;
  size_t offset;
  bool in_place;
  size_t derived;
};

struct Outcome {
  Bytes sealed;
  Block tag;
  Bytes counted;
  Block mac;
  Bytes derived;

  bool operator==(const Outcome&) const = default;
};

Outcome run(const Kernel& with, const Case& given) {
  const size_t size = given.text.size();
  Outcome out;
  GcmKey key;
  with.expand(given.key.data(), key.aes);
  with.gcm_init(key);
  Placed src(given.text, given.offset);
  Placed apart(Bytes(size), given.offset ^ 7);
  uint8_t* const dst = given.in_place ? src.data() : apart.data();
  with.gcm_seal(key, given.iv.data(), given.aad.data(), given.aad.size(), src.data(), dst, size, out.tag.data());
  out.sealed = given.in_place ? src.value() : apart.value();
  REQUIRE(given.in_place || src.value() == given.text);

  Placed sealed(out.sealed, given.offset);
  Placed opened(Bytes(size), given.offset);
  uint8_t* const back = given.in_place ? sealed.data() : opened.data();
  REQUIRE(gcm_open(with, key, given.iv.data(), given.aad, sealed.data(), back, size, out.tag.data()));
  REQUIRE((given.in_place ? sealed : opened).value() == given.text);
  Block wrong = out.tag;
  wrong[given.offset % kTagBytes] ^= 0x40;
  Placed again(out.sealed, given.offset);
  REQUIRE(!gcm_open(with, key, given.iv.data(), given.aad, again.data(), opened.data(), size, wrong.data()));
  REQUIRE(opened.value() == Bytes(size));

  Placed counted(given.text, given.offset);
  ctr128(with, key.aes, given.iv.data(), counted.data(), counted.data(), size);
  out.counted = counted.value();

  CmacKey mac_key;
  cmac_init(with, given.key.data(), mac_key);
  out.mac = cmac(with, mac_key, {given.text, given.aad});
  // However a message is cut, it is one message.
  Bytes whole = given.text;
  whole.insert(whole.end(), given.aad.begin(), given.aad.end());
  REQUIRE(cmac(with, mac_key, {whole}) == out.mac);
  out.derived.resize(given.derived);
  kdf(with, mac_key, {given.aad, given.iv}, out.derived);
  return out;
}

uint32_t slow_crc32c(std::span<const uint8_t> bytes) {
  uint32_t crc = ~uint32_t{0};
  for (const uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78 : 0);
  }
  return ~crc;
}

}  // namespace
}  // namespace sealbd::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sealbd;
  using namespace sealbd::fuzz;
  Input input(data, size);
  Case given;
  const size_t text_size = input.below(kSizeMax);
  const size_t cut = input.below(text_size + 1);
  given.offset = input.below(64);
  given.in_place = input.number() % 2 == 1;
  given.derived = input.below(kKdfBytesMax);
  given.aad = input.bytes(input.below(kAadMax));
  given.iv = input.array<kAesBlock>();
  given.key = input.array<kKeyBytes>();
  given.text = input.filled(text_size);

  const Outcome expected = run(kernel_portable, given);
  for (const Kernel* with : kernels()) {
    if (with->supported() && with != &kernel_portable) REQUIRE(run(*with, given) == expected);
  }
  const std::span<const uint8_t> text(given.text);
  REQUIRE(crc32c(text) == slow_crc32c(text));
  REQUIRE(crc32c(text.subspan(cut), crc32c(text.first(cut))) == crc32c(text));
  return 0;
}
