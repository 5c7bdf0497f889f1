/** Re-encryption, and the conversion of a `none` volume, with snapshots. */
import { readFileSync, rmSync, truncateSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Arena } from '../../src/native/arena.js';
import type { RunBatch } from '../../src/volume/map-file/run-batch.js';
import { diskFull, gate } from '../support/hooked-store.js';
import { type LogLine, recordingLogger } from '../support/nbd-test-server.js';
import { RotatingVolume, rejection } from '../support/rotating-volume.js';
import { readSnapshot } from '../support/snapshot-reader.js';
import { BLOCK } from '../support/volume-harness.js';

const BLOCKS = 1024;
const DEK_ID_AT = 12;

/** Which version each block of a snapshot has; 0: zeros. */
async function versionsOf(subject: RotatingVolume, name: string): Promise<number[]> {
  const io = new Arena(1 << 20);
  try {
    const bytes = await readSnapshot(subject.volume, name, io);
    return versionsIn(bytes);
  } finally {
    io.free();
  }
}

function versionsIn(bytes: Uint8Array): number[] {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  return Array.from({ length: bytes.length / BLOCK }, (_, lba) => {
    const version = words[(lba * BLOCK) / 4 + 1];
    if (version !== 0) expect(words[(lba * BLOCK) / 4]).toBe(lba);
    return version;
  });
}

const versions = (...pieces: [blocks: number, version: number][]): number[] =>
  pieces.flatMap(([blocks, version]) => Array.from({ length: blocks }, () => version));

/** Two snapshots that share some blocks with the volume and with each other. */
async function withSnapshots(suite: 0 | 1 | 2 = 2): Promise<RotatingVolume> {
  const subject = await RotatingVolume.create({ suite, blocks: BLOCKS });
  await subject.fill(1, 0, 600);
  await subject.volume.createSnapshot('a');
  await subject.fill(2, 100, 300);
  await subject.volume.createSnapshot('b');
  await subject.fill(3, 200, 700);
  return subject;
}

async function expectSnapshots(subject: RotatingVolume): Promise<void> {
  expect(await versionsOf(subject, 'a')).toEqual(versions([600, 1], [424, 0]));
  expect(await versionsOf(subject, 'b')).toEqual(versions([100, 1], [200, 2], [300, 1], [424, 0]));
  await subject.expectData();
}

async function rewriteToTheEnd(subject: RotatingVolume): Promise<void> {
  await subject.rewrite();
  await subject.dropOld();
}

const verified = ({ volume }: RotatingVolume) =>
  volume.verify({ signal: new AbortController().signal, onProgress: () => undefined });

describe.each([
  { suite: 2 as const, name: 'aes-256-gcm' },
  { suite: 1 as const, name: 'aes-256-ctr' },
])('re-encryption with snapshots, $name', ({ suite }) => {
  it('leaves nothing under the old DEK, and snapshots read as before', async () => {
    const subject = await withSnapshots(suite);
    await subject.rotate(true);
    await expectSnapshots(subject);
    await rewriteToTheEnd(subject);
    expect(subject.deks).toEqual(['2 active']);
    await expectSnapshots(subject);
    expect(await verified(subject)).toMatchObject({ lost: [], problems: [] });
    await subject.stop();
    subject.expectAllUnder(2);
    await subject.open();
    await expectSnapshots(subject);
    // Shared blocks are still shared: they were moved once.
    const { storedBytes } = subject.volume.stats();
    expect(storedBytes).toBeLessThan((700 + 300 + 200 + 200) * 4128);
    await subject.volume.deleteSnapshot('a');
    await subject.volume.deleteSnapshot('b');
    await subject.volume.compact();
    expect(subject.volume.stats().snapshotBytes).toBe(0);
    await subject.expectData();
  });
});

describe('re-encryption with snapshots', () => {
  it('rewrites those made meanwhile, and spares those deleted meanwhile', async () => {
    const subject = await withSnapshots();
    await subject.rotate(true);
    let made = false;
    const rewriting = subject.rewrite(() => {
      if (made) return;
      made = true;
      void subject.volume.createSnapshot('c');
      void subject.volume.deleteSnapshot('a');
    });
    await rewriting;
    await subject.dropOld();
    expect(subject.deks).toEqual(['2 active']);
    expect(subject.volume.snapshots.list().map(({ name }) => name)).toEqual(['b', 'c']);
    expect(await versionsOf(subject, 'c')).toEqual(versions([100, 1], [100, 2], [500, 3], [324, 0]));
    expect(await versionsOf(subject, 'b')).toEqual(versions([100, 1], [200, 2], [300, 1], [424, 0]));
    await subject.expectData();
  });

  it('takes what a deleted snapshot alone held for gone, and not for damaged', async () => {
    const lines: LogLine[] = [];
    const subject = await RotatingVolume.create({ blocks: BLOCKS, log: recordingLogger(lines) });
    await subject.fill(1, 0, 600);
    await subject.volume.createSnapshot('a');
    await subject.fill(2, 0, 600);
    const { segments } = subject;
    await subject.rotate(true);
    let deleting: Promise<void> | undefined;
    subject.store.onRead = async (name) => {
      if (!name.startsWith('seg-') || deleting !== undefined) return;
      deleting = subject.volume.deleteSnapshot('a');
      await deleting;
    };
    await subject.rewrite();
    expect(deleting).toBeDefined();
    await subject.dropOld();
    expect(subject.deks).toEqual(['2 active']);
    expect(subject.segments.filter((name) => segments.includes(name))).toEqual([]);
    expect(lines.filter(({ level }) => level === 'error')).toEqual([]);
    await subject.expectData();
  });

  it('goes on under a client that reads a snapshot all the while', async () => {
    const subject = await withSnapshots();
    await subject.rotate(true);
    const device = subject.volume.snapshots.device('b')!;
    const detach = device.attach(() => undefined);
    const io = new Arena(4 << 20);
    let ended = false;
    let reads = 0;
    const reading = (async () => {
      while (!ended || reads < 2) {
        await device.read(io, 0, 0, BLOCKS * BLOCK);
        expect(versionsIn(io.bytes.slice(0, BLOCKS * BLOCK))).toEqual(
          versions([100, 1], [200, 2], [300, 1], [424, 0]),
        );
        reads++;
        await setImmediate();
      }
    })();
    await rewriteToTheEnd(subject);
    ended = true;
    await reading;
    expect(subject.deks).toEqual(['2 active']);
    await device.read(io, 0, 0, BLOCKS * BLOCK);
    expect(versionsIn(io.bytes.slice(0, BLOCKS * BLOCK))).toEqual(
      versions([100, 1], [200, 2], [300, 1], [424, 0]),
    );
    detach();
    io.free();
  });

  it('is noticed by a client whose map was being read when blocks were moved', async () => {
    const subject = await withSnapshots();
    await subject.rotate(true);
    const before = await snapshotFiles(subject);
    const { opened, open } = gate();
    let held = false;
    subject.store.onRead = async (name) => {
      if (held || !name.startsWith('map-')) return;
      held = true;
      await opened;
    };
    const device = subject.volume.snapshots.device('b')!;
    const detach = device.attach(() => undefined);
    await expect.poll(() => held).toBe(true);
    const rewriting = subject.rewrite();
    await expect.poll(async () => (await snapshotFiles(subject)).get('b')).not.toEqual(before.get('b'));
    open();
    await rewriting;
    await subject.dropOld();
    expect(subject.deks).toEqual(['2 active']);
    const io = new Arena(4 << 20);
    await device.read(io, 0, 0, BLOCKS * BLOCK);
    expect(versionsIn(io.bytes.slice(0, BLOCKS * BLOCK))).toEqual(
      versions([100, 1], [200, 2], [300, 1], [424, 0]),
    );
    detach();
    io.free();
  });

  it('waits for what is pinned', async () => {
    const subject = await withSnapshots();
    const pin = await subject.volume.pin();
    await subject.rotate(true);
    let done = false;
    const rewriting = subject.rewrite().then(() => {
      done = true;
    });
    // Everything else is moved by then.
    await expect
      .poll(() => subject.volume.rewritten(), { timeout: 20_000 })
      .toSatisfy(({ doneBytes, totalBytes }) => totalBytes - doneBytes <= 700 * BLOCK && doneBytes > 0);
    expect(subject.volume.deksInUse()).toContain(1);
    let blocks = 0;
    for await (const batch of pin.runs() as AsyncIterable<RunBatch>)
      for (let i = 0; i < batch.count; i++) blocks += batch.blocks[i];
    expect([done, blocks]).toEqual([false, 700]);
    await pin.release();
    await rewriting;
    await subject.dropOld();
    expect(subject.deks).toEqual(['2 active']);
    await expectSnapshots(subject);
  }, 30_000);

  it('says which damaged snapshot keeps it from ending, and ends when that is deleted', async () => {
    const subject = await withSnapshots();
    const entry = subject.volume.snapshots.list().find(({ name }) => name === 'a')!;
    expect(entry.problem).toBeUndefined();
    const tables = await tableFiles(subject);
    await subject.stop();
    rmSync(subject.file(tables[0]));
    await subject.open();
    await subject.rotate(true);
    expect(await rejection(subject.rewrite())).toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringContaining('"a"'),
    });
    await subject.dropOld();
    expect(subject.deks).toEqual(['1 retired', '2 active']);
    await subject.volume.deleteSnapshot('a');
    await rewriteToTheEnd(subject);
    expect(subject.deks).toEqual(['2 active']);
    expect(await versionsOf(subject, 'b')).toEqual(versions([100, 1], [200, 2], [300, 1], [424, 0]));
  }, 30_000);

  it('writes the maps of snapshots anew one with each checkpoint, where nothing else is left to do', async () => {
    const subject = await withSnapshots();
    await subject.volume.createSnapshot('c');
    await subject.rotate();
    const foreign = async (): Promise<number> => {
      const files = [...(await snapshotFiles(subject)).values()];
      const isForeign = (file: string) => readFileSync(subject.file(file)).readUInt32LE(DEK_ID_AT) === 1;
      return files.filter((own) => own.some(isForeign)).length;
    };
    for (let left = await foreign(); left > 0; left--) {
      expect(left).toBeLessThan(3);
      await subject.volume.checkpoint();
      expect(await foreign()).toBe(left - 1);
    }
    await rewriteToTheEnd(subject);
    expect(subject.deks).toEqual(['2 active']);
    await expectSnapshots(subject);
  });

  it('leaves where it is what a snapshot holds whose map turns out to be damaged, and moves the rest once', async () => {
    const subject = await withSnapshots();
    // A rotation writes the maps of snapshots anew: each has its own from then on.
    await subject.rotate();
    await subject.volume.checkpoint();
    await subject.rotate(true);
    const [, run] = await ownFiles(subject, 'a');
    truncateSync(subject.file(run), 130);
    const before = subject.volume.stats().movedBytes;
    expect(await rejection(subject.rewrite())).toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringContaining('"a"'),
    });
    expect(subject.volume.stats().movedBytes - before).toBeLessThanOrEqual((700 + 400) * BLOCK);
    await subject.dropOld();
    expect(subject.deks).toEqual(['1 retired', '3 active']);
    expect(await versionsOf(subject, 'b')).toEqual(versions([100, 1], [200, 2], [300, 1], [424, 0]));
    await subject.volume.deleteSnapshot('a');
    await rewriteToTheEnd(subject);
    expect(subject.deks).toEqual(['3 active']);
    await subject.expectData();
  }, 30_000);

  it('goes on when there is room for the maps of snapshots again, and loses nothing meanwhile', async () => {
    const subject = await withSnapshots();
    await subject.rotate(true);
    let refused = 0;
    subject.store.onCreate = async (name) => {
      if (!name.startsWith('map-')) return;
      refused++;
      throw diskFull();
    };
    const rewriting = subject.rewrite();
    // Several passes.
    await expect.poll(() => refused, { timeout: 20_000 }).toBeGreaterThan(8);
    expect(subject.volume.deksInUse()).toContain(1);
    await expectSnapshots(subject);
    subject.store.onCreate = async () => undefined;
    await rewriting;
    await subject.dropOld();
    expect(subject.deks).toEqual(['2 active']);
    await expectSnapshots(subject);
    await subject.stop();
    subject.expectAllUnder(2);
    await subject.open();
  }, 30_000);

  it('lets the volume be rolled back to one, in the middle or afterwards', async () => {
    const subject = await withSnapshots();
    await subject.rotate(true);
    await subject.volume.rollBack('a', 10_000);
    await subject.stop();
    await subject.open();
    await rewriteToTheEnd(subject);
    expect(subject.deks).toEqual(['2 active']);
    await subject.volume.createSnapshot('now');
    expect(await versionsOf(subject, 'now')).toEqual(versions([600, 1], [424, 0]));
    await subject.volume.rollBack('b', 10_000);
    await subject.stop();
    subject.expectAllUnder(2);
    await subject.open();
    await subject.volume.createSnapshot('then');
    expect(await versionsOf(subject, 'then')).toEqual(versions([100, 1], [200, 2], [300, 1], [424, 0]));
  });
});

describe('the conversion of a none volume with snapshots', () => {
  it('leaves no plaintext of them, and they read as before', async () => {
    const subject = await withSnapshots(0);
    expect(subject.plainFiles).not.toEqual([]);
    await subject.convert();
    await expectSnapshots(subject);
    await rewriteToTheEnd(subject);
    expect(subject.deks).toEqual(['1 active']);
    expect(subject.header.superblock.plain).toBe(false);
    await expectSnapshots(subject);
    await subject.stop();
    expect(subject.plainFiles).toEqual([]);
    subject.expectAllUnder(1);
    await subject.open();
    await expectSnapshots(subject);
  });
});

/** Names of the map files of each snapshot by name: its table, then its runs (docs/FORMAT.md). */
async function snapshotFiles(subject: RotatingVolume): Promise<Map<string, string[]>> {
  const root = (await subject.store.readSmall('checkpoint'))!;
  let at = 104 + 72 * root.readUInt32LE(76);
  const found = new Map<string, string[]>();
  const count = root.readUInt32LE(at);
  at += 4;
  for (let i = 0; i < count; i++) {
    const [nameBytes, runs] = [root.readUInt16LE(at + 40), root.readUInt16LE(at + 42)];
    const files = Array.from({ length: 1 + runs }, (_, run) => mapFileAt(root, at + 48 + 72 * run));
    at += 48 + 72 * (1 + runs) + nameBytes;
    found.set(root.toString('latin1', at - nameBytes, at), files);
  }
  return found;
}

function mapFileAt(root: Buffer, at: number): string {
  return `map-${root.readBigUInt64LE(at).toString(16).padStart(16, '0')}`;
}

async function tableFiles(subject: RotatingVolume): Promise<string[]> {
  return [...(await snapshotFiles(subject)).values()].map(([table]) => table);
}

/** Those of a snapshot that nothing else has: first its table. */
async function ownFiles(subject: RotatingVolume, name: string): Promise<string[]> {
  const all = await snapshotFiles(subject);
  const root = (await subject.store.readSmall('checkpoint'))!;
  const live = Array.from({ length: root.readUInt32LE(76) }, (_, run) => mapFileAt(root, 104 + 72 * run));
  const others = [...all].filter(([other]) => other !== name).flatMap(([, files]) => files);
  return all.get(name)!.filter((file) => ![...live, ...others].includes(file));
}
