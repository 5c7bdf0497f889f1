/**
 * What the export holds after the requests so far: sealbd's bytes and blocks, and the bytes of nbdkit's memory, which differ
 * where a TRIM was rounded.
 */
import type { Extent } from './answers.js';
import { CMD, HOLE, ZERO } from './wire.js';

export const BLOCK = 4096;
/** The unit of allocation in nbdkit's memory. */
export const PAGE = 32_768;

export interface Change {
  readonly type: number;
  readonly offset: number;
  readonly length: number;
  /** Of a WRITE. */
  readonly payload: Uint8Array;
}

export class Disk {
  readonly size: number;
  readonly ours: Buffer;
  readonly theirs: Buffer;
  /** One for each of sealbd's blocks: something is stored there. */
  readonly mapped: Uint8Array;

  constructor(size: number) {
    this.size = size;
    this.ours = Buffer.alloc(size);
    this.theirs = Buffer.alloc(size);
    this.mapped = new Uint8Array(size / BLOCK);
  }

  clear(): void {
    this.ours.fill(0);
    this.theirs.fill(0);
    this.mapped.fill(0);
  }

  apply({ type, offset, length, payload }: Change): void {
    const end = offset + length;
    // The blocks that lie wholly inside.
    const [first, last] = [Math.ceil(offset / BLOCK), Math.floor(end / BLOCK)];
    switch (type) {
      case CMD.WRITE:
        this.ours.set(payload, offset);
        this.theirs.set(payload, offset);
        this.mapped.fill(1, Math.floor(offset / BLOCK), Math.ceil(end / BLOCK));
        return;
      case CMD.WRITE_ZEROES:
        this.ours.fill(0, offset, end);
        break;
      case CMD.TRIM:
        if (first < last) this.ours.fill(0, first * BLOCK, last * BLOCK);
        break;
      default:
        return;
    }
    this.theirs.fill(0, offset, end);
    if (first < last) this.mapped.fill(0, first, last);
  }

  /** As sealbd tells them: only the first with `one`. */
  extents(offset: number, length: number, one: boolean): Extent[] {
    const found: { length: number; state: number }[] = [];
    for (let at = offset; at < offset + length; ) {
      const until = Math.min((Math.floor(at / BLOCK) + 1) * BLOCK, offset + length);
      const state = this.mapped[Math.floor(at / BLOCK)] === 1 ? 0 : HOLE | ZERO;
      const last = found.at(-1);
      if (last?.state === state) last.length += until - at;
      else if (one && last !== undefined) break;
      else found.push({ length: until - at, state });
      at = until;
    }
    return found;
  }
}
