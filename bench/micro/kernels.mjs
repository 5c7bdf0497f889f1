// Throughput of the AES-256 kernels against OpenSSL's EVP (node:crypto) and memcpy, in one process.
//
//   node bench/micro/kernels.mjs [--json FILE] [--time MS]
//
// What is measured:
// - `ctr`, `seal`, `open` of a kernel: addon.primitives. Each call includes crossing into C++ and the key expansion
//   (for GCM also the hash powers), which the data path does once per segment. At 4 KiB that weighs.
// - `run seal`, `run open`: sealRun and openRun of the kernel in use over whole 4 KiB slots, as the data path does.
// - EVP ctr: one persistent cipher, `update` per call: no key expansion, but a new output Buffer for each call.
// - EVP gcm: a new cipher per call, as GCM needs a new IV; `node:crypto` has no cheaper way.
// - memcpy: Buffer.copy.
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, cpus, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Bench } from 'tinybench';

const { values: options } = parseArgs({
  options: { json: { type: 'string' }, time: { type: 'string', default: '200' } },
});
const addonFile =
  process.env.SEALBD_ADDON ?? fileURLToPath(new URL('../../build/Release/sealbd.node', import.meta.url));
const addon = createRequire(import.meta.url)(addonFile);
const { primitives } = addon;

const SIZES = [4096, 65536, 1 << 20];
const BLOCK = 4096;
const SLOT = 4128;
const SUITES = { ctr: 1, gcm: 2 };

const key = randomBytes(32);
const iv = randomBytes(12);
const counter = randomBytes(16);
const aad = randomBytes(16);
const dek = addon.keyImport(Buffer.from(key));
const arena = addon.arenaCreate(8 << 20);
const base = arena.id * 2 ** 32;
const [SRC, SLOTS, BACK] = [0, 2 << 20, 5 << 20];

/** One group of tasks for a size; every task handles `size` bytes per call. */
function tasksFor(size) {
  const src = randomBytes(size);
  const dst = Buffer.alloc(size);
  const tasks = [];
  const add = (who, what, run) => tasks.push({ who, what, size, run });

  const evpCtr = createCipheriv('aes-256-ctr', key, counter);
  add('EVP', 'ctr', () => evpCtr.update(src));
  add('EVP', 'seal', () => {
    const gcm = createCipheriv('aes-256-gcm', key, iv);
    gcm.setAAD(aad);
    gcm.update(src);
    gcm.final();
    return gcm.getAuthTag();
  });
  const cipher = Buffer.alloc(size);
  const tag = primitives.gcmSeal('portable', key, iv, aad, src, cipher);
  add('EVP', 'open', () => {
    const gcm = createDecipheriv('aes-256-gcm', key, iv);
    gcm.setAAD(aad);
    gcm.setAuthTag(tag);
    gcm.update(cipher);
    gcm.final();
  });
  add('memcpy', 'copy', () => src.copy(dst));

  for (const { name, supported } of addon.cpuKernels()) {
    if (!supported) continue;
    add(name, 'ctr', () => primitives.ctr(name, key, counter, src, dst));
    add(name, 'seal', () => primitives.gcmSeal(name, key, iv, aad, src, dst));
    add(name, 'open', () => {
      if (!primitives.gcmOpen(name, key, iv, aad, tag, cipher, dst)) throw new Error('did not authenticate');
    });
  }
  const blocks = size / BLOCK;
  for (const [suite, id] of Object.entries(SUITES)) {
    const segmentKey = addon.segmentKeyDerive(dek, id, Buffer.alloc(57, id));
    // Each suite has slots of its own, sealed once before they are opened.
    const slots = base + SLOTS + (id - 1) * (256 * SLOT);
    const seal = () => addon.sealRun(segmentKey, slots, base + SRC, blocks, 0, 0, 1, -1, 1);
    const open = () => {
      if (addon.openRun(segmentKey, base + BACK, slots, blocks, 0, 0) !== -1) throw new Error('did not open');
    };
    seal();
    add(addon.cpuSelected(), `run seal ${suite}`, seal);
    add(addon.cpuSelected(), `run open ${suite}`, open);
  }
  return tasks;
}

const results = [];
for (const size of SIZES) {
  const bench = new Bench({ time: Number(options.time), warmupTime: 50 });
  const tasks = tasksFor(size);
  tasks.forEach((task, i) => {
    bench.add(String(i), task.run);
  });
  await bench.run();
  bench.tasks.forEach((done, i) => {
    if (done.result.state !== 'completed')
      throw done.result.error ?? new Error(`${tasks[i].what} did not complete`);
    const { who, what } = tasks[i];
    const nanoseconds = done.result.latency.p50 * 1e6;
    results.push({
      who,
      what,
      size,
      nanoseconds: Math.round(nanoseconds),
      gigabytesPerSecond: size / nanoseconds,
    });
  });
}

/** The EVP operation that a result is compared with. */
function peerOf({ what, size }) {
  const operation = what.includes('ctr') ? 'ctr' : what.includes('open') ? 'open' : 'seal';
  return results.find((other) => other.who === 'EVP' && other.what === operation && other.size === size);
}

for (const result of results) {
  result.timesEvp = result.gigabytesPerSecond / peerOf(result).gigabytesPerSecond;
}
const conditions = {
  cpu: cpus()[0].model,
  cores: cpus().length,
  system: `Linux ${release()} ${arch()}`,
  node: process.version,
  openssl: process.versions.openssl,
  kernelInUse: addon.cpuSelected(),
};

console.log(conditions);
console.table(
  results.map(({ who, what, size, nanoseconds, gigabytesPerSecond, timesEvp }) => ({
    who,
    what,
    KiB: size / 1024,
    'median ns': nanoseconds,
    'GB/s': Number(gigabytesPerSecond.toFixed(2)),
    'x EVP': who === 'memcpy' ? '' : Number(timesEvp.toFixed(2)),
  })),
);
const json = JSON.stringify({ conditions, results }, null, 2);
if (options.json === undefined) console.log(json);
else writeFileSync(options.json, json);
