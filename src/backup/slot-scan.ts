/** Checks slots in memory: which ones authenticate. */

import { SealbdError } from '../base/errors.js';
import { ARENA_CHUNK_BYTES, SLOT_BYTES } from '../base/limits.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import { addon, type KeyHandle, RUN_OK, type SegmentKeyHandle } from '../native/addon.js';
import { Arena } from '../native/arena.js';
import { BUFFER_SLOTS } from '../segment/append-buffer.js';
import type { SegmentIdentity } from '../segment/segment.js';
import { deriveSegmentKey } from '../segment/segment-handles.js';
import type { PositionRun } from './slot-set.js';

/** Slots that one look takes. */
export const WINDOW_SLOTS = BUFFER_SLOTS;
/** A shorter run is checked on the spot: a trip to a thread takes longer. */
const POOL_SLOTS = 32;

/** A buffer of slots, packed, and room for their plaintext, which is wiped when it is freed. */
export class SlotWindow {
  readonly #slots = new Arena(ARENA_CHUNK_BYTES);
  #plain: Arena | undefined;
  readonly #cipher: CipherPool;
  /** One byte for each slot of the last check: 1 where it authenticates. */
  readonly valid = new Uint8Array(WINDOW_SLOTS);

  constructor(cipher: CipherPool) {
    this.#cipher = cipher;
  }

  get bytes(): Uint8Array {
    return this.#slots.bytes;
  }

  /** Plaintext of the last check, which had one run: BLOCK_BYTES for each slot that authenticates. */
  get plain(): Uint8Array {
    return this.#plain!.bytes;
  }

  /** Fills `valid` for packed slots of these positions; true where all of them authenticate. */
  async check(key: SegmentKeyHandle, runs: Iterable<PositionRun>): Promise<boolean> {
    this.#plain ??= new Arena(ARENA_CHUNK_BYTES);
    let at = 0;
    let sound = true;
    for (const { position, count } of runs) {
      const valid = new Uint8Array(count);
      const job = {
        ...{ op: 'scan' as const, key, dst: this.#plain.ref(0), src: this.#slots.ref(at * SLOT_BYTES) },
        ...{ blocks: count, position, valid },
      };
      const status = count < POOL_SLOTS ? this.#cipher.runInline(job, false) : await this.#cipher.run(job);
      if (status !== RUN_OK) throw new SealbdError('ESHUTDOWN', 'the key was taken away');
      this.valid.set(valid, at);
      sound &&= !valid.includes(0);
      at += count;
    }
    return sound;
  }

  free(): void {
    this.#slots.free();
    this.#plain?.free();
  }
}

/** Lends the key of a segment. */
export async function withSegmentKey<T>(
  segment: SegmentIdentity,
  keys: ReadonlyMap<number, KeyHandle>,
  use: (key: SegmentKeyHandle) => Promise<T>,
): Promise<T> {
  const key = deriveSegmentKey(segment, keys);
  try {
    return await use(key);
  } finally {
    addon.segmentKeyRelease(key);
  }
}
