#include "aes/cmac.h"

#include <algorithm>
#include <cstring>

#include "keys/wipe.h"

namespace sealbd {
namespace {

// Doubling in GF(2^128) (SP 800-38B, section 6.1), without a branch on the bit that falls out.
Block doubled(const Block& in) {
  Block out;
  const auto carry = static_cast<uint8_t>(0 - (in[0] >> 7));  // all ones or all zeros
  for (size_t i = 0; i < kAesBlock; ++i) {
    out[i] = static_cast<uint8_t>(in[i] << 1 | (i + 1 < kAesBlock ? in[i + 1] >> 7 : 0));
  }
  out[15] ^= carry & 0x87;
  return out;
}

// The chain of CMAC over a message that comes in parts. The last block is held back until it is known to be last.
class Chain {
 public:
  Chain(const Kernel& with, const CmacKey& key) : with_(with), key_(key) {}
  ~Chain() {
    wipe(state_.data(), state_.size());
    wipe(held_.data(), held_.size());
  }
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  void add(std::span<const uint8_t> part) {
    while (!part.empty()) {
      if (filled_ == kAesBlock) absorb_held();
      if (filled_ == 0 && part.size() > kAesBlock) {
        const size_t blocks = (part.size() - 1) / kAesBlock;
        with_.cbc_mac(key_.aes, state_.data(), part.data(), blocks);
        part = part.subspan(blocks * kAesBlock);
      }
      const size_t taken = std::min(part.size(), kAesBlock - filled_);
      std::memcpy(held_.data() + filled_, part.data(), taken);
      filled_ += taken;
      part = part.subspan(taken);
    }
  }

  Block finish() {
    const bool whole = filled_ == kAesBlock;
    if (!whole) {
      held_[filled_] = 0x80;
      std::fill(held_.begin() + static_cast<std::ptrdiff_t>(filled_) + 1, held_.end(), uint8_t{0});
    }
    const Block& subkey = whole ? key_.k1 : key_.k2;
    for (size_t i = 0; i < kAesBlock; ++i) held_[i] ^= subkey[i];
    absorb_held();
    return state_;
  }

 private:
  void absorb_held() {
    with_.cbc_mac(key_.aes, state_.data(), held_.data(), 1);
    filled_ = 0;
  }

  const Kernel& with_;
  const CmacKey& key_;
  Block state_{};
  Block held_{};
  size_t filled_ = 0;
};

std::array<uint8_t, 4> be32(uint32_t value) {
  return {static_cast<uint8_t>(value >> 24), static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 8),
          static_cast<uint8_t>(value)};
}

}  // namespace

void cmac_init(const Kernel& with, const uint8_t* key, CmacKey& out) {
  with.expand(key, out.aes);
  Secret<Block> zero;
  with.encrypt_block(out.aes, zero.value.data(), zero.value.data());
  out.k1 = doubled(zero.value);
  out.k2 = doubled(out.k1);
}

Block cmac(const Kernel& with, const CmacKey& key, std::initializer_list<std::span<const uint8_t>> parts) {
  Chain chain(with, key);
  for (const auto& part : parts) chain.add(part);
  return chain.finish();
}

void kdf(const Kernel& with, const CmacKey& key, std::initializer_list<std::span<const uint8_t>> fixed_input,
         std::span<uint8_t> out) {
  Secret<Block> block;
  for (uint32_t i = 1; !out.empty(); ++i) {
    const auto counter = be32(i);
    Chain chain(with, key);
    chain.add(counter);
    for (const auto& part : fixed_input) chain.add(part);
    block.value = chain.finish();
    const size_t taken = std::min(out.size(), kAesBlock);
    std::memcpy(out.data(), block.value.data(), taken);
    out = out.subspan(taken);
  }
}

void derive_key(const Kernel& with, const uint8_t* key, std::span<const uint8_t> label,
                std::span<const uint8_t> context, uint8_t* out) {
  const std::array<uint8_t, 1> separator{0};
  const auto bits = be32(8 * kKeyBytes);
  Secret<CmacKey> prepared;
  cmac_init(with, key, prepared.value);
  kdf(with, prepared.value, {label, separator, context, bits}, {out, kKeyBytes});
}

}  // namespace sealbd
