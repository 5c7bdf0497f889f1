import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store, StoreFile } from '../../src/store/store.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

const sleep = (ms: number) => new Promise((r) => setTimeout(r, ms));
function gate() {
  let open!: () => void;
  const p = new Promise<void>((r) => {
    open = r;
  });
  return { p, open };
}

it('a write in flight while a sync starts is covered by the next flush', async () => {
  const g1 = gate(),
    g2 = gate();
  let pls!: PowerLossStore;
  const wrap = (f: StoreFile): StoreFile => ({
    name: f.name,
    fd: f.fd,
    async write(b, p) {
      const slot = (p - 4096) / 4128;
      if (p > 0 && Number.isInteger(slot)) {
        if (slot === 0) await g1.p;
        if (slot >= 518) await g2.p;
      }
      await f.write(b, p);
    },
    read: (b, p) => f.read(b, p),
    sync: () => f.sync(),
    reload: () => f.reload(),
    truncate: (s) => f.truncate(s),
    size: () => f.size(),
    links: () => f.links(),
    identity: () => f.identity(),
    close: () => f.close(),
  });
  const harness = await VolumeHarness.create({
    tuning: { segmentSlots: 2048, checkpointSlots: 100000, bufferAgeMs: 1_000_000 },
    store: async (path) => {
      const fs = await FsStore.open(path, { create: true });
      if (pls) return fs;
      pls = new PowerLossStore(fs);
      return {
        list: () => pls.list(),
        readSmall: (n) => pls.readSmall(n),
        replaceSmall: (n, b) => pls.replaceSmall(n, b),
        remove: (n) => pls.remove(n),
        rename: (a, b) => pls.rename(a, b),
        syncDirectory: () => pls.syncDirectory(),
        create: async (n, s) => wrap(await pls.create(n, s)),
        open: async (n, a) => wrap(await pls.open(n, a)),
      } as Store;
    },
  });
  const image = await mkdtemp(join(tmpdir(), 'r1-'));
  try {
    const v = harness.volume;
    for (let i = 0; i < 518; i++) await harness.write(i * BLOCK, patternBlock(i, 1));
    const flush1 = v.flush(); // waits for the slow write of buffer 1
    await sleep(20);
    for (let i = 518; i < 1016; i++) await harness.write(i * BLOCK, patternBlock(i, 1)); // fills buffer 2, whose write is slow
    await sleep(20);
    g1.open();
    await flush1;
    g2.open();
    await sleep(20);
    await v.flush(); // covers everything, and must sync
    await pls.lose(image, () => 0.1); // nothing unsynced survives
    await harness.stop();
    await harness.open(false, image);
    expect((await harness.read(1015 * BLOCK, BLOCK))[4]).toBe(1);
  } finally {
    await harness.destroy();
    await rm(image, { recursive: true, force: true });
  }
});
