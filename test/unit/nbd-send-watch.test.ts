/** Who takes its replies too slowly, by the clock alone. */
import { describe, expect, it } from 'vitest';
import {
  SEND_BYTES_PER_SECOND_MIN,
  SEND_STALL_MS,
  SEND_STALL_SHORT_OF_MEMORY_MS,
} from '../../src/base/limits.js';
import { SendWatch } from '../../src/nbd/send-watch.js';

const MiB = 2 ** 20;
const SWEEP_MS = 250;

/** Looks at a client with `unsentBytes` at each sweep, which takes so much a second; ms until it is slow, or Infinity. */
function slowAfter(unsentBytes: number, bytesPerSecond: number, short: boolean, forMs = 300_000): number {
  const watch = new SendWatch(0, SEND_STALL_MS, SEND_BYTES_PER_SECOND_MIN);
  let left = unsentBytes;
  for (let now = SWEEP_MS; now <= forMs; now += SWEEP_MS) {
    const taken = Math.min(left, (bytesPerSecond * SWEEP_MS) / 1000);
    watch.progress(taken);
    left -= taken;
    if (watch.isSlow(now, left, short)) return now;
  }
  return Number.POSITIVE_INFINITY;
}

describe('a client that takes its replies', () => {
  it('not at all, or a few bytes at a time, is slow after the time of a stall', () => {
    for (const rate of [0, 4, 0.9 * SEND_BYTES_PER_SECOND_MIN]) {
      const after = slowAfter(4 * MiB, rate, false);
      expect(after).toBeGreaterThan(SEND_STALL_MS);
      expect(after).toBeLessThan(2.1 * SEND_STALL_MS);
    }
  });

  it('at the least rate, or faster, is not, and neither is who takes all that there is', () => {
    expect(slowAfter(4 * MiB, 1.1 * SEND_BYTES_PER_SECOND_MIN, false)).toBe(Number.POSITIVE_INFINITY);
    expect(slowAfter(4096, 256, false)).toBe(Number.POSITIVE_INFINITY);
  });

  it('must take a part of it, and then of the rest, while others wait for memory', () => {
    for (const unsent of [64 * MiB, 4 * MiB, 300_000]) {
      const part = Math.max(256 * 1024, unsent / 4) / (SEND_STALL_SHORT_OF_MEMORY_MS / 1000);
      expect(slowAfter(unsent, 0.8 * part, true, 12_000)).toBeLessThan(12_000);
      expect(slowAfter(unsent, 1.2 * part, true)).toBe(Number.POSITIVE_INFINITY);
    }
  });

  it('has the ordinary time again when nobody waits any more', () => {
    const watch = new SendWatch(0, SEND_STALL_MS, SEND_BYTES_PER_SECOND_MIN);
    for (let now = 0; now < SEND_STALL_MS; now += SEND_STALL_SHORT_OF_MEMORY_MS - 1) {
      expect(watch.isSlow(now, MiB, true)).toBe(false);
      expect(watch.isSlow(now, MiB, false)).toBe(false);
    }
  });

  it('at no rate at all where that is allowed is slow only when it takes nothing', () => {
    const watch = new SendWatch(0, SEND_STALL_MS, 0);
    for (let now = 0; now < 4 * SEND_STALL_MS; now += SEND_STALL_MS / 2) {
      watch.progress(1);
      expect(watch.isSlow(now, MiB, false)).toBe(false);
    }
    expect(watch.isSlow(6 * SEND_STALL_MS, MiB, false)).toBe(true);
  });
});
