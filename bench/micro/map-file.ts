/**
 * Time to write, read and load, and merge map files of 13.1 million entries, each of one block, and the longest
 * time that the event loop was held up meanwhile. Files are in memory, so the numbers leave out the disk.
 *   npx tsc -p tsconfig.bench.json
 *   SEALBD_TESTING=1 SEALBD_ADDON=$PWD/build/Release/sealbd.node node build/bench/bench/micro/map-file.js
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { addon } from '../../src/native/addon.js';
import { BlockMap } from '../../src/volume/block-map.js';
import { ChangeLog } from '../../src/volume/change-log.js';
import { mergeAll, mergeAllSegments } from '../../src/volume/map-file/merge.js';
import { MapFileReader, readMapFile } from '../../src/volume/map-file/reader.js';
import { RunBatch } from '../../src/volume/map-file/run-batch.js';
import { type MapFileIdentity, writeMapFile } from '../../src/volume/map-file/writer.js';

const ENTRIES = 13_100_000;
const CHANGES = 200_000;
const BASE = { base: true };

class MemoryFile {
  sizeBytes = 0;
  readonly #bytes: Buffer;

  constructor(sizeMax: number) {
    this.#bytes = Buffer.alloc(sizeMax, 1);
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    this.#bytes.set(bytes, offset);
    this.sizeBytes = Math.max(this.sizeBytes, offset + bytes.length);
  }

  async read(bytes: Uint8Array, offset: number): Promise<number> {
    // A real file answers from the event loop.
    await new Promise(setImmediate);
    bytes.set(this.#bytes.subarray(offset, offset + bytes.length));
    return bytes.length;
  }
}

/** Every `stride`th block, in slots that do not follow each other. */
function* runs(count: number, stride: number): Generator<RunBatch> {
  const batch = new RunBatch(8192);
  for (let i = 0; i < count; i++) {
    batch.push(i * stride, 1, (i * 7919 * 131) % 2 ** 38);
    if (batch.count === batch.capacity || i === count - 1) {
      yield batch;
      batch.count = 0;
    }
  }
}

async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const start = performance.now();
  const result = await work();
  const ms = performance.now() - start;
  delay.disable();
  const [p99, max] = [delay.percentile(99) / 1e6, delay.max / 1e6];
  console.log(
    `${name}: ${ms.toFixed(0)} ms; loop held up ${p99.toFixed(1)} ms (p99), ${max.toFixed(1)} ms (max)`,
  );
  return result;
}

const key = addon.keyImport(new Uint8Array(32).fill(5));
const identityOf = (fileId: number): MapFileIdentity => ({
  key,
  dekId: 1,
  uuid: new Uint8Array(16),
  fileId,
  salt: new Uint8Array(32),
});

const file = new MemoryFile(160 * 2 ** 20);
await timed(`write ${ENTRIES} entries`, () => writeMapFile(file, identityOf(1), runs(ENTRIES, 205), []));
console.log(`${(file.sizeBytes / ENTRIES).toFixed(2)} bytes an entry`);

const map = new BlockMap();
await timed('read and load them', async () => {
  const loader = map.loader();
  await readMapFile(
    file,
    identityOf(1),
    BASE,
    ({ lba, blocks, slot, count }) => {
      for (let i = 0; i < count; i++) loader.add(lba[i] as number, blocks[i] as number, slot[i] as number);
    },
    () => undefined,
  );
  loader.finish();
});
if (map.mappedBlocks !== ENTRIES) throw new Error(`${map.mappedBlocks} blocks were loaded`);

const log = new ChangeLog();
const start = performance.now();
for (let i = 0; i < CHANGES; i++) log.append((i * 7_654_321) % (ENTRIES * 205), 1, i * 3);
console.log(`append to a change log: ${(((performance.now() - start) * 1e6) / CHANGES).toFixed(0)} ns`);

const small = new MemoryFile(16 * 2 ** 20);
await timed(`sort and write ${CHANGES} changes`, () =>
  writeMapFile(small, identityOf(2), log.sortedRuns(), []),
);

const merged = new MemoryFile(180 * 2 ** 20);
await timed('merge both files into a third', async () => {
  const older = await MapFileReader.open(file, identityOf(1), BASE);
  const newer = await MapFileReader.open(small, identityOf(2), { base: false });
  const options = { dropTombstones: true };
  const segments = mergeAllSegments([older.segments(), newer.segments()], options);
  await writeMapFile(merged, identityOf(3), mergeAll([older.runs(), newer.runs()], options), segments);
});
addon.keyRelease(key);
