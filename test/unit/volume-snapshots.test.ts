import { cpSync, existsSync, readdirSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SNAPSHOTS_MAX } from '../../src/base/limits.js';
import type { RunBatch } from '../../src/volume/map-file/run-batch.js';
import { diskFull, type HookedStore, hooked } from '../support/hooked-store.js';
import { rejection } from '../support/rotating-volume.js';
import { readSnapshot } from '../support/snapshot-reader.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

const VERSION_AT = 8;

let harness: VolumeHarness;
let store: HookedStore;

beforeEach(async () => {
  harness = await VolumeHarness.create({
    sizeBytes: 256 * BLOCK,
    store: hooked((opened) => {
      store = opened;
    }),
  });
});
afterEach(() => harness.destroy());

const fill = (version: number, from = 0, to = 256): Promise<void> => harness.fill(version, from, to);

async function expectSnapshot(name: string, version: number, from = 0, to = 256): Promise<void> {
  const bytes = await readSnapshot(harness.volume, name, harness.io);
  for (let lba = from; lba < to; lba++) {
    const found = bytes.subarray(lba * BLOCK, (lba + 1) * BLOCK);
    expect([lba, Buffer.compare(found, patternBlock(lba, version))]).toEqual([lba, 0]);
  }
}

const files = (prefix: string): string[] =>
  readdirSync(harness.path).filter((name) => name.startsWith(prefix));
const rootVersion = (): number => readFileSync(join(harness.path, 'checkpoint')).readUInt16LE(VERSION_AT);
const names = (): string[] => harness.volume.snapshots.list().map(({ name }) => name);
const verify = () =>
  harness.volume.verify({ signal: new AbortController().signal, onProgress: () => undefined });

describe('a snapshot', () => {
  it('has everything that was acknowledged before it, flushed or not, and nothing after', async () => {
    await fill(1);
    await harness.volume.trim(10 * BLOCK, 5 * BLOCK);
    await harness.volume.createSnapshot('a');
    await fill(2);
    await expectSnapshot('a', 1, 0, 10);
    await expectSnapshot('a', 1, 15);
    const bytes = await readSnapshot(harness.volume, 'a', harness.io);
    expect(bytes.subarray(10 * BLOCK, 15 * BLOCK).every((byte) => byte === 0)).toBe(true);
  });

  it('is durable when it was answered: a copy of the files at that instant has it', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    await fill(2);
    const copy = `${harness.path}-copy`;
    cpSync(harness.path, copy, { recursive: true });
    await harness.stop();
    await harness.open(false, copy);
    await expectSnapshot('a', 1);
    expect((await verify()).problems).toEqual([]);
    await harness.stop();
    rmSync(copy, { recursive: true });
    await harness.open();
  });

  it('keeps what it holds through compaction and reopening, and lets it go when it is deleted', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    await fill(2);
    await harness.volume.createSnapshot('b');
    await fill(3);
    await harness.volume.compact();
    await harness.reopen();
    await harness.volume.compact();
    await expectSnapshot('a', 1);
    await expectSnapshot('b', 2);
    const before = files('seg-').length;
    const unique = harness.volume.snapshots.list()[0].uniqueBytes;
    expect(unique).toBeGreaterThanOrEqual(200 * BLOCK);
    const held = harness.volume.stats().snapshotBytes;
    await harness.volume.deleteSnapshot('a');
    expect(held - harness.volume.stats().snapshotBytes).toBe(unique);
    expect(files('seg-').length).toBeLessThan(before);
    await expectSnapshot('b', 2);
    await harness.volume.deleteSnapshot('b');
    await harness.volume.compact();
    expect(harness.volume.stats().snapshotBytes).toBe(0);
    expect(files('seg-').length).toBeLessThanOrEqual(Math.ceil((256 * 4) / 3 / 64) + 2);
  });

  it('leaves compaction nothing to do in the segments that it holds', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    for (let lba = 0; lba < 256; lba += 2) await harness.write(lba * BLOCK, patternBlock(lba, 2));
    await harness.volume.compact();
    expect(harness.volume.stats().movedBytes).toBe(0);
    await harness.volume.deleteSnapshot('a');
    await harness.volume.compact();
    expect(harness.volume.stats().movedBytes).toBeGreaterThan(0);
    for (let lba = 0; lba < 256; lba++) {
      const block = await harness.read(lba * BLOCK, BLOCK);
      expect([lba, Buffer.compare(block, patternBlock(lba, 2 - (lba % 2)))]).toEqual([lba, 0]);
    }
  });

  it('gives the root its second version, until the last one is deleted', async () => {
    expect(rootVersion()).toBe(1);
    await harness.volume.createSnapshot('a');
    expect(rootVersion()).toBe(2);
    await harness.volume.deleteSnapshot('a');
    expect(rootVersion()).toBe(1);
  });

  it('keeps its size when the volume gets another one', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    await harness.volume.resize(64 * BLOCK);
    expect(harness.volume.snapshots.list()[0].sizeBytes).toBe(256 * BLOCK);
    await expectSnapshot('a', 1);
  });

  it('is read-only, whatever is asked of its device', async () => {
    await harness.volume.createSnapshot('a');
    const device = harness.volume.snapshots.device('a')!;
    expect(device.readOnly).toBe(true);
    for (const change of [() => device.write(), () => device.trim(), () => device.zero()])
      expect(change).toThrow(expect.objectContaining({ code: 'EPERM' }));
    await device.flush();
  });

  it('is not deleted while somebody reads it, and its map is in memory only as long', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    const device = harness.volume.snapshots.device('a')!;
    const detach = device.attach(() => undefined);
    await device.read(harness.io, 0, 0, BLOCK);
    expect(device.memoryBytes).toBeGreaterThan(0);
    expect(await rejection(harness.volume.deleteSnapshot('a'))).toMatchObject({ code: 'CONFLICT' });
    detach();
    expect(device.memoryBytes).toBe(0);
    await harness.volume.deleteSnapshot('a');
    expect(harness.volume.snapshots.device('a')).toBeUndefined();
  });

  it('ends its connections when the volume stops', async () => {
    await harness.volume.createSnapshot('a');
    const device = harness.volume.snapshots.device('a')!;
    const closed: string[] = [];
    device.attach((reason) => closed.push(reason));
    await harness.stop();
    expect(closed).toHaveLength(1);
    expect(() => device.read(harness.io, 0, 0, BLOCK)).toThrow(
      expect.objectContaining({ code: 'ESHUTDOWN' }),
    );
    await harness.open();
  });

  it('says where it has holes', async () => {
    await fill(1, 0, 8);
    await harness.volume.createSnapshot('a');
    const device = harness.volume.snapshots.device('a')!;
    const detach = device.attach(() => undefined);
    await device.read(harness.io, 0, 0, BLOCK);
    expect(device.extents(0, 256 * BLOCK, 16)).toEqual([
      { length: 8 * BLOCK, hole: false },
      { length: 248 * BLOCK, hole: true },
    ]);
    detach();
  });

  it('of a name that is taken, that is none, or that is one too many is refused', async () => {
    await harness.volume.createSnapshot('a');
    expect(await rejection(harness.volume.createSnapshot('a'))).toMatchObject({ code: 'CONFLICT' });
    expect(await rejection(harness.volume.createSnapshot('a@b'))).toMatchObject({ code: 'USAGE' });
    expect(await rejection(harness.volume.deleteSnapshot('b'))).toMatchObject({ code: 'NOT_FOUND' });
    for (let i = 1; i < SNAPSHOTS_MAX; i++) await harness.volume.createSnapshot(`s${i}`);
    expect(await rejection(harness.volume.createSnapshot('more'))).toMatchObject({ code: 'CONFLICT' });
    await harness.reopen();
    expect(names()).toHaveLength(SNAPSHOTS_MAX);
  });
});

describe('a snapshot on a full disk', () => {
  it('is not made, and the volume goes on', async () => {
    await fill(1);
    store.onCreate = async (name) => {
      if (name.startsWith('map-') || name.startsWith('reserve-map')) throw diskFull();
    };
    expect(await rejection(harness.volume.createSnapshot('a'))).toMatchObject({ code: 'ENOSPC' });
    await fill(2);
    await harness.volume.checkpoint();
    expect(names()).toEqual([]);
    store.onCreate = async () => undefined;
    await harness.volume.createSnapshot('a');
    await expectSnapshot('a', 2);
  });

  it('is not made of a map file of the reserve, which the next checkpoints need', async () => {
    await fill(1);
    let first = true;
    store.onCreate = async (name) => {
      if (name.startsWith('reserve') || (first && name.startsWith('map-'))) throw diskFull();
    };
    store.onRename = async (from) => {
      if (from.startsWith('reserve-map')) first = false;
    };
    expect(await rejection(harness.volume.createSnapshot('a'))).toMatchObject({ code: 'ENOSPC' });
    expect(first).toBe(false);
    expect(await rejection(harness.volume.pin())).toMatchObject({ code: 'ENOSPC' });
    for (let version = 2; version < 5; version++) {
      await fill(version);
      await harness.volume.checkpoint();
    }
    store.onCreate = async () => undefined;
    await harness.volume.createSnapshot('a');
    await expectSnapshot('a', 4);
  });

  it('is deleted, and gives back its space', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    await fill(2);
    store.onCreate = async () => {
      throw diskFull();
    };
    const before = files('seg-').length;
    await harness.volume.deleteSnapshot('a');
    expect(files('seg-').length).toBeLessThan(before);
    await fill(3, 0, 32);
    await harness.volume.checkpoint();
  });
});

describe('a damaged snapshot', () => {
  /** The table of the only snapshot: the newest map file. */
  async function withDamagedTable(damage: (path: string) => void): Promise<string[]> {
    await fill(1);
    await harness.volume.createSnapshot('a');
    const table = files('map-').sort().at(-1)!;
    const segments = files('seg-')
      .sort()
      .slice(0, 256 / 64);
    await fill(2);
    await harness.volume.compact();
    await harness.stop();
    damage(join(harness.path, table));
    await harness.open();
    return segments;
  }

  it.each([
    { what: 'missing', damage: (path: string) => rmSync(path) },
    { what: 'cut short', damage: (path: string) => truncateSync(path, 100) },
  ])('whose table is $what does not keep the volume from serving', async ({ damage }) => {
    await withDamagedTable(damage);
    expect(harness.volume.snapshots.list()[0].problem).toMatch(/map-[0-9a-f]{16}/);
    expect(Buffer.compare(await harness.read(0, BLOCK), patternBlock(0, 2))).toBe(0);
    expect(() => harness.volume.snapshots.device('a')!.attach(() => undefined)).toThrow(
      expect.objectContaining({ code: 'EIO' }),
    );
    expect(await rejection(harness.volume.pin('a'))).toMatchObject({ code: 'INTEGRITY' });
  });

  it('keeps all that it may need, until it is deleted', async () => {
    const before = await withDamagedTable((path) => rmSync(path));
    await fill(3);
    await harness.volume.compact();
    expect(files('seg-')).toEqual(expect.arrayContaining(before));
    await harness.volume.deleteSnapshot('a');
    await harness.volume.compact();
    expect(files('seg-').filter((name) => before.includes(name))).toEqual([]);
    await harness.reopen();
    expect(names()).toEqual([]);
  });

  it('whose map is damaged reads as EIO, and the volume does not', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    const shared = files('map-');
    await fill(2);
    await harness.volume.checkpoint();
    await fill(3);
    await harness.volume.checkpoint();
    const root = readFileSync(join(harness.path, 'checkpoint'));
    const live = Array.from({ length: root.readUInt32LE(76) }, (_, i) => root.readBigUInt64LE(104 + 72 * i));
    const own = shared.filter((name) => !live.includes(BigInt(`0x${name.slice(4)}`)));
    expect(own.length).toBeGreaterThan(1);
    for (const name of own.slice(0, -1)) truncateSync(join(harness.path, name), 200);
    await harness.reopen();
    const device = harness.volume.snapshots.device('a')!;
    const detach = device.attach(() => undefined);
    expect(await rejection(Promise.resolve(device.read(harness.io, 0, 0, BLOCK)))).toMatchObject({
      code: 'EIO',
    });
    detach();
    expect((await verify()).problems).not.toEqual([]);
    expect(Buffer.compare(await harness.read(0, BLOCK), patternBlock(0, 3))).toBe(0);
  });
});

describe('a pin', () => {
  it('keeps the map and the segments of its cut until it is released, and nothing on disk tells of it', async () => {
    await fill(1);
    const pin = await harness.volume.pin();
    expect(rootVersion()).toBe(1);
    await fill(2);
    await harness.volume.compact();
    await harness.volume.compact();
    const mapped = new Map<number, number>();
    for await (const { count, lba, blocks, slot } of pin.runs() as AsyncIterable<RunBatch>)
      for (let i = 0; i < count; i++)
        for (let at = 0; at < blocks[i]; at++) mapped.set(lba[i] + at, slot[i] + at);
    expect([...mapped.keys()]).toEqual(Array.from({ length: 256 }, (_, lba) => lba));
    for (const slot of mapped.values()) {
      const segment = pin.segment(Math.floor(slot / 16384))!;
      expect(slot % 16384).toBeLessThan(segment.slots);
      expect(existsSync(join(harness.path, `seg-${segment.id.toString(16).padStart(16, '0')}`))).toBe(true);
    }
    expect(pin.segments().reduce((sum, { blocks }) => sum + blocks, 0)).toBe(pin.mappedBlocks);
    const before = files('seg-').length;
    await pin.release();
    await pin.release();
    await harness.volume.checkpoint();
    expect(files('seg-').length).toBeLessThan(before);
  });
});
