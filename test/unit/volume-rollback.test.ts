import { cpSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { diskFull, type HookedStore, hooked } from '../support/hooked-store.js';
import { type LogLine, recordingLogger } from '../support/nbd-test-server.js';
import { rejection } from '../support/rotating-volume.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

const SEQUENCE_AT = 40;
const DEADLINE_MS = 10_000;

let harness: VolumeHarness;
let store: HookedStore;
let lines: LogLine[];

beforeEach(async () => {
  lines = [];
  harness = await VolumeHarness.create({
    log: recordingLogger(lines),
    sizeBytes: 256 * BLOCK,
    store: hooked((opened) => {
      store = opened;
    }),
  });
});
afterEach(() => harness.destroy());

const fill = (version: number, from = 0, to = 256): Promise<void> => harness.fill(version, from, to);

async function expectVersion(version: number, from = 0, to = 256): Promise<void> {
  for (let lba = from; lba < to; lba++) {
    const found = await harness.read(lba * BLOCK, BLOCK);
    const wanted = version === 0 ? new Uint8Array(BLOCK) : patternBlock(lba, version);
    expect([lba, Buffer.compare(found, wanted)]).toEqual([lba, 0]);
  }
}

const sequenceOnDisk = (): number =>
  Number(readFileSync(join(harness.path, 'checkpoint')).readBigUInt64LE(SEQUENCE_AT));

describe('rolling back', () => {
  it('gives the volume the map of the snapshot, which stays; sequences go on', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    await fill(2, 0, 100);
    await harness.volume.trim(200 * BLOCK, 56 * BLOCK);
    await harness.volume.createSnapshot('b');
    await harness.volume.rollBack('a', DEADLINE_MS);
    const sequence = sequenceOnDisk();
    expect(sequence).toBeGreaterThan(356);
    await harness.open();
    await expectVersion(1);
    await fill(3, 0, 10);
    await harness.reopen();
    expect(sequenceOnDisk()).toBeGreaterThan(sequence);
    await expectVersion(3, 0, 10);
    await expectVersion(1, 10);
    await harness.volume.rollBack('b', DEADLINE_MS);
    await harness.open();
    await expectVersion(2, 0, 100);
    await expectVersion(1, 100, 200);
    await expectVersion(0, 200);
    expect(harness.volume.snapshots.list().map(({ name }) => name)).toEqual(['a', 'b']);
  });

  it('lets nothing that was discarded come back when the volume dies after it', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    await fill(2);
    await harness.volume.flush();
    await harness.volume.rollBack('a', DEADLINE_MS);
    await harness.open();
    await fill(3, 0, 5);
    await harness.volume.flush();
    const copy = `${harness.path}-copy`;
    cpSync(harness.path, copy, { recursive: true });
    await harness.stop();
    await harness.open(false, copy);
    await expectVersion(3, 0, 5);
    await expectVersion(1, 5);
    await harness.stop();
    rmSync(copy, { recursive: true });
    await harness.open();
  });

  it('frees what only the discarded state had', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    for (let version = 2; version < 6; version++) await fill(version);
    await harness.volume.rollBack('a', DEADLINE_MS);
    await harness.open();
    await harness.volume.checkpoint();
    expect(harness.volume.stats().storedBytes).toBeLessThan(2 * 256 * 4128);
    await harness.volume.deleteSnapshot('a');
    await expectVersion(1);
  });

  it('to a snapshot without any block, and to one made before segments of it went, works', async () => {
    await harness.volume.createSnapshot('empty');
    await fill(1, 0, 64);
    await harness.volume.createSnapshot('few');
    for (let version = 2; version < 8; version++) await fill(version);
    await harness.volume.compact();
    await harness.volume.rollBack('few', DEADLINE_MS);
    await harness.open();
    await expectVersion(1, 0, 64);
    await expectVersion(0, 64);
    await harness.volume.rollBack('empty', DEADLINE_MS);
    await harness.open();
    await expectVersion(0);
    await fill(9);
    await harness.reopen();
    await expectVersion(9);
    const verified = await harness.volume.verify({
      signal: new AbortController().signal,
      onProgress: () => undefined,
    });
    expect([verified.lost, verified.problems]).toEqual([[], []]);
  });

  it('names no segment any more that went since, though the map files of the snapshot do', async () => {
    await fill(1, 0, 10);
    await harness.volume.trim(0, 10 * BLOCK);
    // The segment that is open is in the table, and nothing of it is held.
    await harness.volume.createSnapshot('a');
    for (let version = 2; version < 6; version++) await fill(version);
    await harness.volume.compact();
    await harness.volume.rollBack('a', DEADLINE_MS);
    await harness.open();
    await expectVersion(0);
    expect(lines.filter(({ level }) => level === 'error')).toEqual([]);
  });

  it('is refused while clients are attached, to the volume or to a snapshot, and the volume serves on', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    for (const device of [harness.volume, harness.volume.snapshots.device('a')!]) {
      const detach = device.attach(() => undefined);
      expect(await rejection(harness.volume.rollBack('a', DEADLINE_MS))).toMatchObject({ code: 'CONFLICT' });
      detach();
    }
    expect(await rejection(harness.volume.rollBack('b', DEADLINE_MS))).toMatchObject({ code: 'NOT_FOUND' });
    await fill(2);
    await expectVersion(2);
  });

  it('to a snapshot whose map is damaged is refused, and the volume serves on', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    const root = readFileSync(join(harness.path, 'checkpoint'));
    const first = `map-${root.readBigUInt64LE(104).toString(16).padStart(16, '0')}`;
    for (let version = 2; version < 5; version++) {
      await fill(version);
      await harness.volume.checkpoint();
    }
    truncateSync(join(harness.path, first), 150);
    expect(await rejection(harness.volume.rollBack('a', DEADLINE_MS))).toMatchObject({ code: 'INTEGRITY' });
    await fill(5);
    await expectVersion(5);
  });

  it('that finds no room leaves everything as it was', async () => {
    await fill(1);
    await harness.volume.createSnapshot('a');
    await fill(2);
    await harness.volume.checkpoint();
    store.onCreate = async (name) => {
      if (name.startsWith('map-')) throw diskFull();
    };
    expect(await rejection(harness.volume.rollBack('a', DEADLINE_MS))).toMatchObject({ code: 'ENOSPC' });
    await harness.open();
    await expectVersion(2);
    await harness.volume.rollBack('a', DEADLINE_MS);
    await harness.open();
    await expectVersion(1);
  });
});
