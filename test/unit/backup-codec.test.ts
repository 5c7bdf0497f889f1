import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeIndex, encodeIndex, type IndexEntry } from '../../src/backup/index-codec.js';
import {
  decodeManifest,
  encodeManifest,
  type Manifest,
  manifestAuthenticates,
} from '../../src/backup/manifest.js';
import { differences } from '../../src/backup/map-diff.js';
import { windows } from '../../src/backup/packed-slots.js';
import { SlotSet } from '../../src/backup/slot-set.js';
import { isSealbdError } from '../../src/base/errors.js';
import { addon } from '../../src/native/addon.js';
import { RunBatch } from '../../src/volume/map-file/run-batch.js';
import { testSeed } from '../support/seeded-random.js';

const seed = testSeed('backup-codec');
const key = addon.keyGenerate();
const bytesOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const positions = fc.uniqueArray(fc.integer({ min: 0, max: 16383 }), { minLength: 1, maxLength: 200 });

function setOf(all: readonly number[]): SlotSet {
  const set = new SlotSet();
  for (const position of all) set.add(position, 1);
  return set;
}

const manifestArbitrary: fc.Arbitrary<Manifest> = fc
  .record({
    suite: fc.constantFrom(0 as const, 1 as const, 2 as const),
    plain: fc.boolean(),
    uuid: bytesOf(16),
    backupUuid: bytesOf(16),
    createdAt: fc.maxSafeNat(),
    sizeBytes: fc.integer({ min: 1, max: 2 ** 34 }).map((blocks) => blocks * 4096),
    sequence: fc.maxSafeNat(),
    mappedBlocks: fc.maxSafeNat(),
    slots: fc.maxSafeNat(),
    segments: fc.nat(),
    nextIndex: fc.nat(),
    index: fc.record({ bytes: fc.maxSafeNat(), sha256: bytesOf(32) }),
    map: fc.record({ bytes: fc.maxSafeNat(), sha256: bytesOf(32), salt: bytesOf(32) }),
    name: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,20}$/),
    origin: fc.option(bytesOf(16), { nil: undefined }),
    base: fc.option(
      fc.record({ backupUuid: bytesOf(16), digest: bytesOf(32), path: fc.string({ unit: 'grapheme' }) }),
      { nil: undefined },
    ),
    ids: fc.uniqueArray(fc.integer({ min: 1, max: 1000 }), { minLength: 1, maxLength: 4 }),
  })
  .map(({ ids, origin, ...rest }): Manifest => {
    const dekId = Math.max(...ids);
    const deks = ids.map((id) => ({
      ...{ id, state: id === dekId ? ('active' as const) : ('retired' as const), exposed: id % 2 === 0 },
      ...{ createdAt: id, checkValue: new Uint8Array(16).fill(id), wrapped: new Uint8Array(60).fill(id) },
      ...{ keyUri: 'local:default', resolvedKeyId: 'local:default#x', keyVersion: '1' },
    }));
    const origins = origin === undefined ? [] : [{ uuid: origin, lastDek: 3 }];
    return rest.suite === 0 ? { ...rest, origins, dekId: 0, deks: [] } : { ...rest, origins, dekId, deks };
  });

describe('the manifest of a backup', () => {
  it('comes back from its bytes as it was', () => {
    fc.assert(
      fc.property(manifestArbitrary, (manifest) => {
        const bytes = encodeManifest(manifest, key);
        const decoded = decodeManifest(bytes, 'manifest');
        expect(decoded.manifest).toEqual(manifest);
        expect(manifestAuthenticates(decoded, key)).toBe(true);
        expect(encodeManifest(decoded.manifest, key)).toEqual(bytes);
      }),
      { seed, numRuns: 200 },
    );
  });

  it('is refused with any one bit flipped, at any other length, and under another key', () => {
    const [manifest] = fc.sample(
      manifestArbitrary.filter(({ base, suite }) => base !== undefined && suite === 2),
      {
        seed,
        numRuns: 1,
      },
    );
    const bytes = encodeManifest(manifest, key);
    const accepted = (changed: Uint8Array): boolean => {
      try {
        return manifestAuthenticates(decodeManifest(changed, 'manifest'), key);
      } catch (error) {
        if (isSealbdError(error, 'INTEGRITY')) return false;
        throw error;
      }
    };
    expect(accepted(bytes)).toBe(true);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = bytes.slice();
      changed[bit >> 3] ^= 1 << (bit & 7);
      expect(accepted(changed), `bit ${bit}`).toBe(false);
    }
    for (let length = 0; length < bytes.length; length++)
      expect(accepted(bytes.subarray(0, length))).toBe(false);
    const other = addon.keyGenerate();
    expect(manifestAuthenticates(decodeManifest(bytes, 'manifest'), other)).toBe(false);
    addon.keyRelease(other);
  });
});

describe('the index of a backup', () => {
  const entries = fc
    .uniqueArray(
      fc.tuple(fc.integer({ min: 0, max: 2 ** 24 - 1 }), positions, bytesOf(16), bytesOf(32), fc.nat()),
      {
        minLength: 1,
        maxLength: 8,
        selector: ([index]) => index,
      },
    )
    .map((all) =>
      all
        .sort(([a], [b]) => a - b)
        .map(
          ([index, where, originUuid, salt, crc]): IndexEntry => ({
            ...{ index, id: index + 1, kind: 1, suite: 2, dekId: 1 },
            ...{ originUuid, salt, crc, slots: setOf(where) },
          }),
        ),
    );

  it('comes back from its bytes as it was, and in one way only', () => {
    fc.assert(
      fc.property(entries, (all) => {
        const bytes = encodeIndex(all);
        const decoded = decodeIndex(bytes, 'index');
        expect(encodeIndex(decoded)).toEqual(bytes);
        expect(decoded.map(({ slots, ...rest }) => ({ ...rest, runs: [...slots.runs()] }))).toEqual(
          all.map(({ slots, ...rest }) => ({ ...rest, runs: [...slots.runs()] })),
        );
      }),
      { seed, numRuns: 100 },
    );
  });

  it('is refused where it is cut, or counts wrong', () => {
    const [all] = fc.sample(entries, { seed, numRuns: 1 });
    const bytes = encodeIndex(all);
    for (let length = 0; length < bytes.length; length += 7)
      expect(() => decodeIndex(bytes.subarray(0, length), 'index')).toThrow(/truncated/);
    const changed = bytes.slice();
    changed[16 + 76] ^= 1;
    expect(() => decodeIndex(changed, 'index')).toThrow(/bitmap/);
  });
});

describe('a set of positions', () => {
  it('has the runs, ranks and windows of what was put in', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 1, max: 1200 })), {
          maxLength: 12,
        }),
        (runs) => {
          const set = new SlotSet();
          const naive = new Set<number>();
          for (const [position, count] of runs) {
            set.add(position, count);
            for (let i = 0; i < count; i++) naive.add(position + i);
          }
          const sorted = [...naive].sort((a, b) => a - b);
          const flat = [...set.runs()].flatMap(({ position, count }) =>
            Array.from({ length: count }, (_, i) => position + i),
          );
          expect(flat).toEqual(sorted);
          expect([set.count, set.slots]).toEqual([sorted.length, (sorted.at(-1) ?? -1) + 1]);
          sorted.forEach((position, rank) => {
            if (rank % 17 === 0) expect([set.rank(position), set.has(position)]).toEqual([rank, true]);
          });
          const seen: number[] = [];
          for (const { first, count, runs: parts } of windows(set, 508)) {
            expect(first).toBe(seen.length);
            for (const part of parts) for (let i = 0; i < part.count; i++) seen.push(part.position + i);
            expect(seen.length - first).toBe(count);
            expect(seen[seen.length - 1] - seen[first]).toBeLessThan(508);
          }
          expect(seen).toEqual(sorted);
        },
      ),
      { seed, numRuns: 100 },
    );
  });
});

describe('where two maps differ', () => {
  const map = fc.array(fc.integer({ min: -1, max: 5 }), { minLength: 1, maxLength: 60 });
  /** Blocks of one number are in consecutive slots of a region of their own. */
  const slotsOf = (regions: readonly number[]) =>
    regions.map((region, lba) => (region < 0 ? -1 : region * 1000 + lba));

  async function* runsOf(slots: readonly number[], batchRuns: number): AsyncGenerator<RunBatch> {
    let batch = new RunBatch(batchRuns);
    for (let lba = 0; lba < slots.length; ) {
      let blocks = 1;
      while (lba + blocks < slots.length && slots[lba + blocks] === slots[lba] + blocks) blocks++;
      if (slots[lba] >= 0) batch.push(lba, blocks, slots[lba]);
      lba += blocks;
      if (batch.count < batch.capacity) continue;
      yield batch;
      batch = new RunBatch(batchRuns);
    }
    yield batch;
  }

  it('is every block that differs, once, in order', async () => {
    await fc.assert(
      fc.asyncProperty(map, map, fc.integer({ min: 1, max: 4 }), async (one, other, batchRuns) => {
        const [before, after] = [slotsOf(one), slotsOf(other)];
        const found: [number, number, number][] = [];
        for await (const batch of differences(runsOf(before, batchRuns), runsOf(after, batchRuns + 1)))
          for (const piece of batch)
            for (let i = 0; i < piece.blocks; i++)
              found.push([
                piece.lba + i,
                piece.before < 0 ? -1 : piece.before + i,
                piece.after < 0 ? -1 : piece.after + i,
              ]);
        const expected: [number, number, number][] = [];
        for (let lba = 0; lba < Math.max(before.length, after.length); lba++) {
          const [was, is] = [before[lba] ?? -1, after[lba] ?? -1];
          if (was !== is) expected.push([lba, was, is]);
        }
        expect(found).toEqual(expected);
      }),
      { seed, numRuns: 300 },
    );
  });
});

it('a checksum goes on where another one ended', () => {
  const bytes = Uint8Array.from({ length: 5000 }, (_, i) => (i * 37) & 0xff);
  const [head, tail] = [bytes.subarray(0, 1234), bytes.subarray(1234)];
  expect(addon.crc32c(tail, addon.crc32c(head, 0))).toBe(addon.crc32c(bytes, 0));
});
