import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Arena } from '../../src/native/arena.js';
import { FsStore } from '../../src/store/fs-store.js';
import { gate, HookedStore, sleep } from '../support/hooked-store.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';
import { snapshotOf } from '../support/volume-parser.js';

/** What `kill -9` would leave. */
async function copyAlive(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const [name, bytes] of await snapshotOf(from)) await writeFile(join(to, name), bytes);
}

async function atSegmentEnd(body: (h: VolumeHarness, open: () => void) => Promise<void>) {
  let s!: HookedStore;
  const h = await VolumeHarness.create({
    tuning: { sparesMax: 0, checkpointSlots: 1e6 },
    store: async (p) => (s = new HookedStore(await FsStore.open(p, { create: true }))),
  });
  const g = gate();
  try {
    await h.write(500 * BLOCK, patternBlock(500, 1));
    await sleep(30);
    s.onCreate = async (n) => {
      if (n.startsWith('seg-')) await g.opened;
    };
    for (let i = 1; ; i++) {
      h.io.bytes.set(patternBlock(i, 1));
      if (h.volume.write(h.io, 0, i * BLOCK, BLOCK) instanceof Promise) break;
    }
    await body(h, g.open);
  } finally {
    g.open();
    await h.destroy();
  }
}

it('a partial write does not undo a whole write that waited with it', () =>
  atSegmentEnd(async (h, open) => {
    const a = new Arena(4096),
      b = new Arena(4096);
    a.bytes.fill(0xaa);
    b.bytes.fill(0xbb);
    const w = h.volume.write(a, 0, 500 * BLOCK, BLOCK);
    const p = h.volume.write(b, 0, 500 * BLOCK, 512);
    open();
    await w;
    await p;
    expect((await h.read(500 * BLOCK, BLOCK))[512]).toBe(0xaa);
  }));

it('what grows back reads as zeros, though a write was in flight', () =>
  atSegmentEnd(async (h, open) => {
    const a = new Arena(4096);
    a.bytes.fill(0xaa);
    const w = h.volume.write(a, 0, 10000 * BLOCK, BLOCK);
    const r = h.volume.resize(5000 * BLOCK);
    open();
    await w;
    await r;
    await h.volume.resize(16384 * BLOCK);
    expect((await h.read(10000 * BLOCK, BLOCK))[0]).toBe(0);
  }));

it('opens after an opening that ended before its checkpoint', async () => {
  let s!: HookedStore;
  let crash = false;
  const image = await mkdtemp(join(tmpdir(), 'r1-')),
    image2 = await mkdtemp(join(tmpdir(), 'r1-'));
  const h = await VolumeHarness.create({
    tuning: { appendBuffers: 1, checkpointSlots: 1e6, bufferAgeMs: 1e8 },
    store: async (p) => {
      s = new HookedStore(await FsStore.open(p, { create: true }));
      s.onReplace = async () => {
        if (crash) throw new Error('killed');
      };
      return s;
    },
  });
  try {
    await h.write(0, patternBlock(0, 1));
    await sleep(30);
    const g = gate();
    s.onWrite = async (n, pos) => {
      if (n.startsWith('seg-') && pos > 0) await g.opened;
    };
    for (let i = 1; i < 64; i++) await h.write(i * BLOCK, patternBlock(i, 1));
    h.io.bytes.set(patternBlock(64, 1));
    const w = h.volume.write(h.io, 0, 64 * BLOCK, BLOCK); // a new head, no free buffer
    const c = h.volume.checkpoint();
    g.open();
    await w;
    await c;
    await copyAlive(h.path, image); // kill -9
    await h.stop();
    crash = true;
    await expect(h.open(false, image)).rejects.toThrow('killed');
    crash = false;
    const v = await h.open(false, image);
    await h.write(0, patternBlock(0, 2));
    await v.flush();
    await copyAlive(image, image2); // kill -9 again
    await h.stop();
    await h.open(false, image2);
    expect((await h.read(0, 8))[4]).toBe(2);
  } finally {
    await h.destroy();
    await rm(image, { recursive: true });
    await rm(image2, { recursive: true });
  }
});
