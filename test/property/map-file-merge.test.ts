import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BLOCKS_MAX } from '../../src/base/limits.js';
import { UNMAPPED } from '../../src/volume/block-map.js';
import { ChangeLog } from '../../src/volume/change-log.js';
import { mergeAll, mergeRuns } from '../../src/volume/map-file/merge.js';
import { RunBatch, type RunSource } from '../../src/volume/map-file/run-batch.js';
import { sortChanges } from '../../src/volume/map-file/sort-changes.js';

const SEED = Number(process.env.SEALBD_TEST_SEED ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env.SEALBD_TEST_RUNS ?? 300);
console.log(`map-file merge: SEALBD_TEST_SEED=${SEED}`);

interface Change {
  readonly lba: number;
  readonly blocks: number;
  readonly slot: number;
}

/** What the last of the changes says of a block; undefined where none does. */
function slotAt(changes: readonly Change[], lba: number): number | undefined {
  for (let i = changes.length - 1; i >= 0; i--) {
    const change = changes[i] as Change;
    if (lba < change.lba || lba >= change.lba + change.blocks) continue;
    return change.slot === UNMAPPED ? UNMAPPED : change.slot + (lba - change.lba);
  }
  return undefined;
}

async function collect(source: RunSource): Promise<Change[]> {
  const runs: Change[] = [];
  for await (const { lba, blocks, slot, count } of source) {
    for (let i = 0; i < count; i++) {
      runs.push({ lba: lba[i] as number, blocks: blocks[i] as number, slot: slot[i] as number });
    }
  }
  return runs;
}

/** Sorted, apart, joined where possible, and the same as the changes on both sides of every edge. */
function checkNet(runs: readonly Change[], changes: readonly Change[], tombstones: boolean): void {
  for (let i = 1; i < runs.length; i++) {
    const [a, b] = [runs[i - 1] as Change, runs[i] as Change];
    expect(b.lba).toBeGreaterThanOrEqual(a.lba + a.blocks);
    const joins =
      b.lba === a.lba + a.blocks && b.slot === (a.slot === UNMAPPED ? UNMAPPED : a.slot + a.blocks);
    expect(joins).toBe(false);
  }
  if (!tombstones) expect(runs.some(({ slot }) => slot === UNMAPPED)).toBe(false);
  const edges = new Set<number>();
  for (const { lba, blocks } of [...runs, ...changes]) {
    for (const edge of [lba - 1, lba, lba + 1, lba + blocks - 1, lba + blocks]) edges.add(edge);
  }
  const none = tombstones ? undefined : UNMAPPED;
  const wanted = [...edges].map((lba) => [lba, slotAt(changes, lba) ?? none]);
  expect([...edges].map((lba) => [lba, slotAt(runs, lba) ?? none])).toEqual(wanted);
}

function batches(runs: readonly Change[], size: number): RunBatch[] {
  const result: RunBatch[] = [];
  for (let i = 0; i < runs.length; i += size) {
    const batch = new RunBatch(size);
    for (const { lba, blocks, slot } of runs.slice(i, i + size)) batch.push(lba, blocks, slot);
    result.push(batch);
  }
  return result;
}

const near = fc.record({
  lba: fc.integer({ min: 0, max: 120 }),
  blocks: fc.integer({ min: 1, max: 20 }),
  slot: fc.oneof(fc.constant(UNMAPPED), fc.integer({ min: 0, max: 60 })),
});
const far = fc
  .record({
    lba: fc.oneof(
      fc.constantFrom(0, 2 ** 32 - 3, BLOCKS_MAX - 9),
      fc.integer({ min: 0, max: BLOCKS_MAX - 1 }),
    ),
    blocks: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: BLOCKS_MAX })),
    slot: fc.oneof(fc.constant(UNMAPPED), fc.integer({ min: 2 ** 32 - 9, max: 2 ** 38 })),
  })
  .map((change) => ({ ...change, blocks: Math.min(change.blocks, BLOCKS_MAX - change.lba) }));
const changesOf = fc.array(fc.oneof({ weight: 3, arbitrary: near }, { weight: 1, arbitrary: far }), {
  maxLength: 60,
});

function net(changes: readonly Change[]): Change[] {
  const lba = Float64Array.from(changes, (c) => c.lba);
  const slot = Float64Array.from(changes, (c) => c.slot);
  const blocks = changes.map((c) => c.blocks);
  const batch = sortChanges(lba, blocks, slot);
  const runs: Change[] = [];
  for (let i = 0; i < batch.count; i++) {
    runs.push({
      lba: batch.lba[i] as number,
      blocks: batch.blocks[i] as number,
      slot: batch.slot[i] as number,
    });
  }
  return runs;
}

test('sorting changes gives their net effect', () => {
  fc.assert(
    fc.property(changesOf, (changes) => checkNet(net(changes), changes, true)),
    { seed: SEED, numRuns: RUNS },
  );
});

test('merging two sorted sequences is the same as the older changes and then the newer', async () => {
  await fc.assert(
    fc.asyncProperty(
      changesOf,
      changesOf,
      fc.integer({ min: 1, max: 7 }),
      fc.boolean(),
      async (older, newer, size, drop) => {
        const options = { dropTombstones: drop };
        const merged = mergeRuns(batches(net(newer), size), batches(net(older), size + 1), options);
        checkNet(await collect(merged), [...older, ...newer], !drop);
      },
    ),
    { seed: SEED, numRuns: RUNS },
  );
});

test('merging many sequences is the same as all their changes in order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(changesOf, { maxLength: 7 }), fc.boolean(), async (parts, drop) => {
      const sources = parts.map((part) => batches(net(part), 5));
      const merged = mergeAll(sources, { dropTombstones: drop });
      checkNet(await collect(merged), parts.flat(), !drop);
    }),
    { seed: SEED, numRuns: RUNS },
  );
});

test('a ChangeLog gives the net effect of many chunks of changes, long unmaps included', async () => {
  let state = SEED >>> 0;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const log = new ChangeLog();
  const changes: Change[] = [];
  for (let i = 0; i < 30_000; i++) {
    const huge = i % 5000 === 4999;
    const lba = huge ? random(50_000) : random(100_000);
    const blocks = huge ? BLOCKS_MAX - lba - random(9) : 1 + random(8);
    const slot = huge || random(4) === 0 ? UNMAPPED : random(2 ** 32) * 64;
    log.append(lba, blocks, slot);
    changes.push({ lba, blocks, slot });
  }
  const oracle = new Map<number, number>();
  for (const { lba, blocks, slot } of changes) {
    for (let b = lba; b < Math.min(lba + blocks, 110_000); b++)
      oracle.set(b, slot < 0 ? slot : slot + (b - lba));
  }
  const runs = await collect(log.sortedRuns());
  let at = 0;
  for (const { lba, blocks, slot } of runs) {
    expect(lba).toBeGreaterThanOrEqual(at);
    for (let b = at; b < Math.min(lba, 110_000); b++) if (oracle.has(b)) expect(`hole at ${b}`).toBe('');
    for (let b = lba; b < Math.min(lba + blocks, 110_000); b++) {
      const wanted = slot < 0 ? slot : slot + (b - lba);
      if (oracle.get(b) !== wanted) expect([b, oracle.get(b)]).toEqual([b, wanted]);
    }
    at = lba + blocks;
  }
  expect(at).toBe(Math.max(...changes.map(({ lba, blocks }) => lba + blocks)));
});

test('a ChangeLog keeps changes that continue each other as one, and takes none once frozen', async () => {
  const log = new ChangeLog();
  expect(log.changes).toBe(0);
  for (let i = 0; i < 10_000; i++) log.append(7 + i * 3, 3, 100 + i * 3);
  expect(log.changes).toBe(1);
  log.append(2 ** 33, 2 ** 33, UNMAPPED);
  expect(log.changes).toBe(5);
  expect(await collect(log.sortedRuns())).toEqual([
    { lba: 7, blocks: 30_000, slot: 100 },
    { lba: 2 ** 33, blocks: 2 ** 33, slot: UNMAPPED },
  ]);
  expect(() => log.append(0, 1, 1)).toThrow('frozen');
  expect(await collect(new ChangeLog().sortedRuns())).toEqual([]);
});
