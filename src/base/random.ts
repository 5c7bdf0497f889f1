/** Randomness as a dependency: below `daemon/` nothing draws it by itself. */
export interface RandomSource {
  /** Fills `bytes` and returns it. */
  fill<T extends Uint8Array>(bytes: T): T;
}

const UUID_BYTES = 16;

/** A version 4 uuid (RFC 9562). */
export function randomUuid(random: RandomSource): Uint8Array {
  const uuid = random.fill(new Uint8Array(UUID_BYTES));
  uuid[6] = (uuid[6] & 0x0f) | 0x40;
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}

export function formatUuid(uuid: Uint8Array): string {
  if (uuid.length !== UUID_BYTES) throw new RangeError('a uuid has 16 bytes');
  const hex = Buffer.from(uuid).toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
