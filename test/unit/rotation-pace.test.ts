/** Who waits for space on a full disk, while a rewriting gives way to clients. */
import { afterAll, expect, it, onTestFinished } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { addon } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import type { Segment } from '../../src/segment/segment.js';
import { FsStore } from '../../src/store/fs-store.js';
import { type Engine, openEngine } from '../../src/volume/engine.js';
import { Relocation } from '../../src/volume/relocation.js';
import { defaultTuning } from '../../src/volume/tuning.js';
import { VolumeKeys } from '../../src/volume/volume-keys.js';
import { expectNoLeakedSlots, memoryDirectory } from '../support/key-fixtures.js';
import { BLOCK, patternBlock, SMALL_TUNING } from '../support/volume-harness.js';

/** Three chunks of a rewriting are one segment, so that it pauses within one. */
const SEGMENT_SLOTS = 1024;
const SEGMENTS = 4;
const SIZE_BYTES = 64 * 2 ** 20;
const cipher = new CipherPool({ threads: 1 });
afterAll(() => cipher.destroy());

/** Timers of checkpoints and buffers are not due in this test. */
const NEVER_MS = 3_600_000;
/** Pauses are much shorter; memory is looked at for what is not needed now that seldom, and checkpoints too. */
const LONG_MS = 1000;

/** Ends pauses at once, and counts them. */
class CountingClock implements Clock {
  pauses = 0;
  now = systemClock.now;
  monotonic = systemClock.monotonic;

  setTimeout(fn: () => void, delayMs: number) {
    if (delayMs >= LONG_MS) return systemClock.setTimeout(fn, delayMs);
    this.pauses++;
    return systemClock.setTimeout(fn, Math.min(delayMs, 1));
  }
}

/** An engine with four whole segments under DEK 1, that seals under DEK 2 by now. Clients are active all the time. */
async function switched(clock: Clock): Promise<Engine> {
  expectNoLeakedSlots();
  const deks = new Map([1, 2].map((id) => [id, addon.keyGenerate()]));
  const keys = new VolumeKeys({ suite: 2, deks, activeDek: 1 });
  let requests = 0;
  const engine = await openEngine({
    ...{ name: 'v', uuid: new Uint8Array(16).fill(7), keys, cipher, clock, log: nullLogger, fresh: true },
    store: await FsStore.open(memoryDirectory(), { create: true }),
    tuning: {
      ...{ ...defaultTuning(SIZE_BYTES, addon.cpuSelected()), ...SMALL_TUNING },
      ...{
        segmentSlots: SEGMENT_SLOTS,
        checkpointSlots: 1_000_000,
        garbageRatio: 2,
        bufferAgeMs: NEVER_MS,
        checkpointIntervalMs: NEVER_MS,
      },
    },
    sizeBytes: () => SIZE_BYTES,
    requests: () => ++requests,
    onFailure: (error) => {
      throw error;
    },
  });
  const io = new Arena(BLOCK);
  onTestFinished(async () => {
    await engine.close(true);
    io.free();
    for (const key of deks.values()) addon.keyRelease(key);
  });
  for (let lba = 0; lba < SEGMENT_SLOTS * SEGMENTS; lba++) {
    io.bytes.set(patternBlock(lba, 1));
    await engine.path.write(io, 0, lba * BLOCK, BLOCK);
  }
  await engine.checkpointer.run();
  keys.switchTo(2, deks.get(2)!, 2);
  await engine.head.moveTo(2);
  await engine.checkpointer.run();
  return engine;
}

const oldOnes = ({ table }: Engine) =>
  [...table.all()].filter(({ dekId, live }) => dekId === 1 && live === SEGMENT_SLOTS);

async function rewrite(engine: Engine, victims: Segment[], onChunk: () => void): Promise<boolean> {
  const { compactor, checkpointer, table } = engine;
  const relocation = await Relocation.of(victims, table, checkpointer.snapshots);
  return compactor.rewrite(victims, relocation, { onChunk, claim: 'all-but-one' });
}

it('an urgent round ends with the segment at work, and the rewriting makes no pause until then', async () => {
  const clock = new CountingClock();
  const engine = await switched(clock);
  const victims = oldOnes(engine);
  expect(victims.length).toBeGreaterThanOrEqual(SEGMENTS - 1);
  let urgent: Promise<number> | undefined;
  let pausesAtFirst = 0;
  const rewriting = rewrite(engine, victims, () => {
    if (urgent !== undefined) return;
    pausesAtFirst = clock.pauses;
    urgent = engine.compactor.round(true).then(() => oldOnes(engine).length);
  });
  await rewriting;
  expect(await urgent).toBe(victims.length - 1);
  // The pause that was due already; two more chunks follow.
  expect(clock.pauses - pausesAtFirst).toBeLessThanOrEqual(1);
});

it('a rewriting that nobody waits for gives way to clients after each chunk', async () => {
  const clock = new CountingClock();
  const engine = await switched(clock);
  const victims = oldOnes(engine);
  const before = clock.pauses;
  let chunks = 0;
  await rewrite(engine, victims, () => {
    chunks++;
  });
  expect(chunks).toBeGreaterThanOrEqual(2 * victims.length);
  expect(clock.pauses - before).toBeGreaterThanOrEqual(chunks);
  expect(oldOnes(engine)).toEqual([]);
});
