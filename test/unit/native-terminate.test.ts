/** A worker may be terminated in the middle of a call. Its environment takes no errors any more; the process lives on. */
import { expect, test } from 'vitest';
import { inChild } from '../support/native-child.js';
import { ADDON_FILE } from '../support/native-kernels.js';

const ROUNDS = 25;

/** Endless work for a worker, by the part of the addon that it is in. */
const WORK: Readonly<Record<string, string>> = {
  'throws an error for each call': `
    for (;;) try { addon.sealRun(65537 * 3, 1, 1, 1, 0, 0, 0, -1, 1); } catch {}
  `,
  'makes objects': 'for (;;) addon.secureMemory();',
  'makes buffers': 'for (;;) addon.keyMac(key, "x", context, new Uint8Array(4096));',
  'throws errors of sockets': 'for (;;) try { addon.ioListenTcp(1, 2, 3); } catch {}',
  'seals and opens long runs': `
    const { id } = addon.arenaCreate(16 << 20);
    const ref = (offset) => id * 2 ** 32 + offset;
    for (;;) {
      addon.sealRun(segmentKey, ref(8 << 20), ref(0), 1000, 0, 0, 1, -1, 1);
      addon.openRun(segmentKey, ref(0), ref(8 << 20), 1000, 0, 0);
    }
  `,
  'makes arenas': `
    const step = () => { addon.arenaFree(addon.arenaCreate(1 << 20).id); setImmediate(step); };
    step();
  `,
  'makes memory for secrets': `
    const step = () => {
      const buffers = [1, 5000, 100000].map((size) => addon.secretCreate(size));
      addon.secretRelease(buffers[1]);
      setImmediate(step);
    };
    step();
  `,
  'waits for allocations': `
    const { openSync } = require('node:fs');
    const fd = openSync('/dev/null', 'w');
    const step = () => { for (let i = 0; i < 20; i++) addon.fileAllocate(fd, 1 << 20).catch(() => {}); setImmediate(step); };
    step();
  `,
  'listens on sockets': `
    addon.ioStart(new Float64Array(64), () => {});
    addon.ioInterest(addon.ioListenTcp('127.0.0.1', 0, 5), 1);
    const step = () => setImmediate(step);
    step();
  `,
};

/** What every worker starts with. */
const PREPARE = `
  const addon = require(process.env.ADDON_FILE);
  const key = addon.keyGenerate();
  const context = Buffer.alloc(57, 2);
  const segmentKey = addon.segmentKeyDerive(key, 2, context);
  require('node:worker_threads').parentPort.postMessage('running');
`;

const TERMINATE = `
  const { Worker } = require('node:worker_threads');
  (async () => {
    for (let round = 0; round < ${ROUNDS}; round++) {
      const worker = new Worker(process.env.WORKER, { eval: true });
      await new Promise((resolve) => worker.once('message', resolve));
      await new Promise((resolve) => setTimeout(resolve, (round * 7) % 9));
      await worker.terminate();
    }
    console.log('alive');
  })();
`;

test.each(Object.keys(WORK))('terminating a worker that %s does not end the process', async (name) => {
  const result = await inChild(TERMINATE, { env: { ADDON_FILE, WORKER: PREPARE + WORK[name] } });
  expect(result).toEqual({ code: 0, stdout: 'alive\n', stderr: '' });
});
