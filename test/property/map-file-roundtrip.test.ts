import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BLOCKS_MAX, SLOT_ADDRESS_END } from '../../src/base/limits.js';
import { UNMAPPED } from '../../src/volume/block-map.js';
import {
  MAP_ENTRY_BYTES_MAX,
  MapEntryDecoder,
  putMapEntry,
  putVarint,
} from '../../src/volume/map-file/entry-codec.js';
import { RunBatch } from '../../src/volume/map-file/run-batch.js';

const SEED = Number(process.env.SEALBD_TEST_SEED ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env.SEALBD_TEST_RUNS ?? 500);
console.log(`map-file round trip: SEALBD_TEST_SEED=${SEED}`);

/** Small numbers and those around powers of two alike. */
function numberBelow(end: number): fc.Arbitrary<number> {
  const near = fc
    .tuple(fc.integer({ min: 0, max: 52 }), fc.integer({ min: -2, max: 2 }))
    .map(([exponent, delta]) => Math.max(0, 2 ** exponent + delta));
  return fc
    .oneof(fc.integer({ min: 0, max: 300 }), near, fc.maxSafeNat())
    .map((value) => (value < end ? value : value % end));
}

function slowVarint(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    if (rest < 128n) return [...bytes, Number(rest)];
    bytes.push(Number(rest & 127n) | 128);
  }
}

const run = fc.record({
  gap: numberBelow(2 ** 31),
  blocks: numberBelow(2 ** 31).map((value) => value + 1),
  slot: fc.oneof(fc.constant(UNMAPPED), numberBelow(SLOT_ADDRESS_END - 2 ** 31)),
});

test('varints are LEB128 for every number up to 2^53 - 1', () => {
  fc.assert(
    fc.property(numberBelow(2 ** 53), (value) => {
      const bytes = new Uint8Array(10);
      const end = putVarint(bytes, 2, value);
      expect([...bytes.subarray(2, end)]).toEqual(slowVarint(value));
    }),
    { seed: SEED, numRuns: RUNS },
  );
});

test('entries decode to what was encoded, whatever the size of the batches', () => {
  fc.assert(
    fc.property(fc.array(run, { maxLength: 7 }), fc.integer({ min: 1, max: 8 }), (parts, size) => {
      const bytes = new Uint8Array(parts.length * MAP_ENTRY_BYTES_MAX);
      const wanted: number[][] = [];
      let at = 0;
      let lba = 0;
      let end = 0;
      for (const { gap, blocks, slot } of parts) {
        lba = end + gap;
        if (lba + blocks > BLOCKS_MAX) break;
        const before = at;
        at = putMapEntry(bytes, at, end, lba, blocks, slot);
        expect(at - before).toBeLessThanOrEqual(MAP_ENTRY_BYTES_MAX);
        wanted.push([lba, blocks, slot]);
        end = lba + blocks;
      }
      const decoder = new MapEntryDecoder(bytes.subarray(0, at), 0, true, (problem) => new Error(problem));
      const batch = new RunBatch(size);
      const found: number[][] = [];
      while (decoder.fill(batch)) {
        for (let i = 0; i < batch.count; i++) {
          found.push([batch.lba[i] as number, batch.blocks[i] as number, batch.slot[i] as number]);
        }
      }
      expect(found).toEqual(wanted);
      expect(decoder.end).toBe(end);
    }),
    { seed: SEED, numRuns: RUNS },
  );
});

test('any bytes decode to entries that encode to the same bytes, or are refused', () => {
  let accepted = 0;
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (payload) => {
      const batch = new RunBatch(64);
      const decoder = new MapEntryDecoder(payload, 0, true, (problem) => new RangeError(problem));
      try {
        decoder.fill(batch);
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError);
        return;
      }
      accepted += 1;
      const bytes = new Uint8Array(64 * MAP_ENTRY_BYTES_MAX);
      let at = 0;
      let end = 0;
      for (let i = 0; i < batch.count; i++) {
        const [lba, blocks] = [batch.lba[i] as number, batch.blocks[i] as number];
        at = putMapEntry(bytes, at, end, lba, blocks, batch.slot[i] as number);
        end = lba + blocks;
      }
      expect(bytes.subarray(0, at)).toEqual(payload);
    }),
    { seed: SEED, numRuns: RUNS * 4 },
  );
  expect(accepted).toBeGreaterThan(0);
});
