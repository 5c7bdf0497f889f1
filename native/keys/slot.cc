#include "keys/slot.h"

#include <cstring>

#include "io/crc32c.h"
#include "keys/wipe.h"

namespace sealbd {
namespace {

constexpr size_t kCrcBytes = 4;
constexpr uint32_t kNoLag = 0xffffff;

using Tag = std::array<uint8_t, kTagBytes>;

void store_le(uint8_t* p, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) p[i] = static_cast<uint8_t>(value >> (8 * i));
}

uint64_t load_le(const uint8_t* p, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value |= uint64_t{p[i]} << (8 * i);
  return value;
}

void store_be32(uint8_t* p, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(value >> (24 - 8 * i));
}

void store_meta(uint8_t* p, const SlotMeta& meta) {
  const uint64_t lag = meta.durable < 0 ? kNoLag : meta.sequence - static_cast<uint64_t>(meta.durable);
  store_le(p, meta.sequence, 7);
  store_le(p + 7, meta.lba, 5);
  p[12] = static_cast<uint8_t>(meta.kind);
  store_le(p + 13, lag < kNoLag ? lag : kNoLag, 3);
}

// be96(position).
std::array<uint8_t, kIvBytes> gcm_iv(uint32_t position) {
  std::array<uint8_t, kIvBytes> iv{};
  store_be32(iv.data() + 8, position);
  return iv;
}

// be128(position * 256). Below 2^22, so that counting stays in the low 32 bits.
Block ctr_counter(uint32_t position) {
  Block counter{};
  store_be32(counter.data() + 12, position * (kBlockBytes / kAesBlock));
  return counter;
}

// `aes-256-ctr`: CRC32C(ciphertext), then 12 bytes of MAC(be32(position) || meta || CRC32C). The message has 24
// bytes, so CMAC is two steps of the chain, the second block padded with 0x80 and masked with K2.
Tag ctr_tag(const Kernel& with, const CmacKey& key, uint32_t position, const uint8_t* slot) {
  Tag tag;
  store_le(tag.data(), crc32c({slot, kBlockBytes}), kCrcBytes);
  uint8_t message[2 * kAesBlock] = {};
  store_be32(message, position);
  std::memcpy(message + 4, slot + kBlockBytes, kMetaBytes);
  std::memcpy(message + 4 + kMetaBytes, tag.data(), kCrcBytes);
  message[4 + kMetaBytes + kCrcBytes] = 0x80;
  for (size_t i = 0; i < kAesBlock; ++i) message[kAesBlock + i] ^= key.k2[i];
  Block mac{};
  with.cbc_mac(key.aes, mac.data(), message, 2);
  wipe(message, sizeof message);
  std::memcpy(tag.data() + kCrcBytes, mac.data(), kTagBytes - kCrcBytes);
  return tag;
}

// `none`: CRC32C(salt || be32(position) || meta || block), then zeros.
Tag none_tag(const uint8_t* salt, uint32_t position, const uint8_t* slot) {
  uint8_t place[4];
  store_be32(place, position);
  uint32_t crc = crc32c({salt, kSaltBytes});
  crc = crc32c(place, crc);
  crc = crc32c({slot + kBlockBytes, kMetaBytes}, crc);
  crc = crc32c({slot, kBlockBytes}, crc);
  Tag tag{};
  store_le(tag.data(), crc, kCrcBytes);
  return tag;
}

}  // namespace

void seal_slot(const Kernel& with, const SegmentKey& key, uint32_t position, const SlotMeta& meta,
               ConstPlainBlock block, Slot slot) {
  uint8_t* const at_meta = slot.data() + kBlockBytes;
  uint8_t* const at_tag = at_meta + kMetaBytes;
  store_meta(at_meta, meta);
  switch (key.suite) {
    case Suite::gcm:
      with.gcm_seal(key.gcm, gcm_iv(position).data(), at_meta, kMetaBytes, block.data(), slot.data(), kBlockBytes,
                    at_tag);
      return;
    case Suite::ctr: {
      with.ctr32(key.ctr.data, ctr_counter(position).data(), block.data(), slot.data(), kBlockBytes);
      const Tag tag = ctr_tag(with, key.ctr.slot, position, slot.data());
      std::memcpy(at_tag, tag.data(), kTagBytes);
      return;
    }
    case Suite::none: {
      std::memcpy(slot.data(), block.data(), kBlockBytes);
      const Tag tag = none_tag(key.salt, position, slot.data());
      std::memcpy(at_tag, tag.data(), kTagBytes);
      return;
    }
  }
}

bool open_slot(const Kernel& with, const SegmentKey& key, uint32_t position, ConstSlot slot, PlainBlock block) {
  const uint8_t* const at_meta = slot.data() + kBlockBytes;
  const std::span<const uint8_t> stored{at_meta + kMetaBytes, kTagBytes};
  if (key.suite == Suite::gcm) {
    return gcm_open(with, key.gcm, gcm_iv(position).data(), {at_meta, kMetaBytes}, slot.data(), block.data(),
                    kBlockBytes, stored.data());
  }
  const Tag tag = key.suite == Suite::ctr ? ctr_tag(with, key.ctr.slot, position, slot.data())
                                          : none_tag(key.salt, position, slot.data());
  if (!equal_constant_time(tag, stored)) {
    wipe(block);
    return false;
  }
  if (key.suite == Suite::ctr) {
    with.ctr32(key.ctr.data, ctr_counter(position).data(), slot.data(), block.data(), kBlockBytes);
  } else {
    std::memcpy(block.data(), slot.data(), kBlockBytes);
  }
  return true;
}

bool slot_is_data_of(ConstSlot slot, uint64_t lba) {
  const uint8_t* const meta = slot.data() + kBlockBytes;
  return meta[12] == static_cast<uint8_t>(SlotKind::data) && load_le(meta + 7, 5) == lba;
}

}  // namespace sealbd
