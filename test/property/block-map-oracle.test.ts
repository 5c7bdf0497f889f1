import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BLOCKS_MAX, SLOT_ADDRESS_END } from '../../src/base/limits.js';
import { BlockMap, UNMAPPED } from '../../src/volume/block-map.js';

const SEED = Number(process.env.SEALBD_TEST_SEED ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env.SEALBD_TEST_RUNS ?? 150);
console.log(`block-map oracle: SEALBD_TEST_SEED=${SEED}`);

/** Places where something changes: edges of leaves, of directory pages, of the volume, of 2^31 and 2^32. */
const ANCHORS = [0, 4096, 8192, 4096 * 4096, 2 ** 31, 2 ** 32, BLOCKS_MAX - 4096, BLOCKS_MAX];
/** Low slots, slots around 2^32, slots at the top. */
const SLOTS = [0, 2 ** 32 - 5000, 2 ** 38, SLOT_ADDRESS_END - 20_001];

class Oracle {
  readonly map = new Map<number, number>();

  replace(lba: number, blocks: number, slot: number): number[] {
    const replaced: number[] = [];
    for (let i = 0; i < blocks; i++) {
      const old = this.map.get(lba + i);
      if (old !== undefined) replaced.push(old);
      if (slot === UNMAPPED) this.map.delete(lba + i);
      else this.map.set(lba + i, slot + i);
    }
    return replaced;
  }

  runAt(lba: number, blocksMax: number): { slot: number; blocks: number } {
    const slot = this.map.get(lba) ?? UNMAPPED;
    let blocks = 1;
    while (blocks < blocksMax) {
      const next = this.map.get(lba + blocks) ?? UNMAPPED;
      if (next !== (slot === UNMAPPED ? UNMAPPED : slot + blocks)) break;
      blocks++;
    }
    return { slot, blocks };
  }

  runs(): [number, number, number][] {
    const result: [number, number, number][] = [];
    for (const lba of [...this.map.keys()].sort((a, b) => a - b)) {
      const slot = this.map.get(lba) as number;
      const last = result.at(-1);
      if (last && last[0] + last[1] === lba && last[2] + last[1] === slot) last[1] += 1;
      else result.push([lba, 1, slot]);
    }
    return result;
  }
}

function check(map: BlockMap, oracle: Oracle): void {
  expect(map.mappedBlocks).toBe(oracle.map.size);
  const runs: [number, number, number][] = [];
  map.forEachRun((lba, blocks, slot) => runs.push([lba, blocks, slot]));
  expect(runs).toEqual(oracle.runs());
  for (const [lba, slot] of oracle.map) if (map.get(lba) !== slot) expect(map.get(lba)).toBe(slot);
}

const place = fc
  .tuple(
    fc.constantFrom(...ANCHORS),
    fc.oneof(fc.integer({ min: -40, max: 40 }), fc.integer({ min: -6000, max: 6000 })),
  )
  .map(([anchor, delta]) => Math.min(BLOCKS_MAX - 1, Math.max(0, anchor + delta)));
const length = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 4 }) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 100 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 9000 }) },
);
const slotOf = fc
  .tuple(fc.constantFrom(...SLOTS), fc.integer({ min: 0, max: 9000 }))
  .map(([base, delta]) => base + delta);
const change = fc.record({
  kind: fc.constantFrom('set', 'set', 'set', 'append', 'unmap', 'move', 'scatter', 'probe'),
  place,
  length,
  slot: slotOf,
});

test('a BlockMap agrees with a plain Map under any sequence of changes', () => {
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 60 }), (changes) => {
      const map = new BlockMap();
      const oracle = new Oracle();
      let tail = { lba: 0, slot: 0 };
      for (const { kind, place: at, length: wanted, slot } of changes) {
        const lba = kind === 'append' ? Math.min(tail.lba, BLOCKS_MAX - 1) : at;
        const blocks = Math.min(wanted, BLOCKS_MAX - lba);
        const replaced: number[] = [];
        const onReplaced = (from: number, count: number): void => {
          for (let i = 0; i < count; i++) replaced.push(from + i);
        };
        if (kind === 'set' || kind === 'append') {
          const target = kind === 'append' && tail.slot + blocks <= SLOT_ADDRESS_END ? tail.slot : slot;
          map.setRun(lba, blocks, target, onReplaced);
          expect(replaced).toEqual(oracle.replace(lba, blocks, target));
          tail = { lba: lba + blocks, slot: target + blocks };
        } else if (kind === 'unmap') {
          map.unmapRun(lba, blocks, onReplaced);
          expect(replaced).toEqual(oracle.replace(lba, blocks, UNMAPPED));
        } else if (kind === 'move') {
          const from = oracle.map.get(lba);
          expect(map.move(lba, slot, slot + 1)).toBe(from === slot);
          if (from === slot) oracle.map.set(lba, slot + 1);
          else if (from !== undefined) {
            expect(map.move(lba, from, slot)).toBe(true);
            oracle.map.set(lba, slot);
          }
        } else if (kind === 'scatter') {
          // Single blocks with slots that do not follow each other: sparse leaves grow and become dense.
          for (let i = 0; i < blocks; i++) {
            const target = slot + ((i * 7919) % 9973);
            map.setRun(lba + i, 1, target, onReplaced);
            oracle.replace(lba + i, 1, target);
          }
        } else {
          const out = { slot: 0, blocks: 0 };
          map.runAt(lba, blocks, out);
          expect(out).toEqual(oracle.runAt(lba, blocks));
        }
      }
      check(map, oracle);
      const copy = new BlockMap();
      const loader = copy.loader();
      map.forEachRun((lba, blocks, slot) => loader.add(lba, blocks, slot));
      loader.finish();
      check(copy, oracle);
    }),
    { seed: SEED, numRuns: RUNS },
  );
});

test('a BlockMap agrees with a plain Map through growth, density, thinning and compaction of its memory', () => {
  let state = SEED >>> 0;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const map = new BlockMap();
  const oracle = new Oracle();
  const span = 64 * 4096;
  const phases = [
    { count: 150_000, set: 1, blocksMax: 1 },
    { count: 200_000, set: 0.1, blocksMax: 2 },
    { count: 20_000, set: 0.9, blocksMax: 40 },
    { count: 60_000, set: 0.5, blocksMax: 3 },
  ];
  for (const phase of phases) {
    for (let i = 0; i < phase.count; i++) {
      const lba = random(span);
      const blocks = Math.min(1 + random(phase.blocksMax), span - lba);
      const slot = random(2 ** 32) * 100;
      const replaced: number[] = [];
      const onReplaced = (from: number, count: number): void => {
        for (let k = 0; k < count; k++) replaced.push(from + k);
      };
      const target = random(1000) < phase.set * 1000 ? slot : UNMAPPED;
      if (target === UNMAPPED) map.unmapRun(lba, blocks, onReplaced);
      else map.setRun(lba, blocks, target, onReplaced);
      const expected = oracle.replace(lba, blocks, target);
      if (replaced.length !== expected.length || replaced.some((s, k) => s !== expected[k])) {
        expect(replaced).toEqual(expected);
      }
    }
    check(map, oracle);
  }
  const replaced: number[] = [];
  map.unmapRun(0, BLOCKS_MAX, (slot, blocks) => replaced.push(slot, blocks));
  expect(map.mappedBlocks).toBe(0);
  expect(replaced.length).toBeGreaterThan(0);
  expect(map.memoryBytes).toBeLessThan(2 ** 20);
});

test('a BlockMap of blocks scattered over many leaves stays small, and agrees with a plain Map', () => {
  let state = SEED >>> 0;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const map = new BlockMap();
  const oracle = new Oracle();
  const span = 16_384 * 4096;
  const churn = (count: number, set: number): void => {
    for (let i = 0; i < count; i++) {
      const lba = random(span);
      // What a leaf holds is thinned out by unmapping its neighbourhood, so that leaves shrink as well.
      const blocks = random(100) < set ? 1 : 500;
      const slot = blocks === 1 ? random(2 ** 32) * 50 : UNMAPPED;
      const length = Math.min(blocks, span - lba);
      if (slot === UNMAPPED) map.unmapRun(lba, length, () => undefined);
      else map.setRun(lba, length, slot, () => undefined);
      oracle.replace(lba, length, slot);
    }
  };
  churn(400_000, 100);
  expect(map.mappedBlocks).toBe(oracle.map.size);
  // Spare and half-filled slabs weigh about 2 bytes a block in a map this small.
  expect(map.memoryBytes / map.mappedBlocks).toBeLessThan(10.5);
  churn(100_000, 50);
  churn(200_000, 100);
  check(map, oracle);
});
