import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/base/clock.js';
import { type Logger, nullLogger } from '../../src/base/log.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store } from '../../src/store/store.js';
import type { VolumeTuning } from '../../src/volume/tuning.js';
import { Volume } from '../../src/volume/volume.js';
import { snapshotOf } from './volume-parser.js';

export const BLOCK = 4096;

export interface HarnessOptions {
  readonly sizeBytes?: number;
  readonly suite?: SuiteId;
  readonly tuning?: Partial<VolumeTuning>;
  readonly store?: (path: string) => Promise<Store>;
  readonly log?: Logger;
}

/** Small segments, so that a test crosses many of them. */
export const SMALL_TUNING: Partial<VolumeTuning> = {
  segmentSlots: 64,
  checkpointSlots: 256,
  checkpointIntervalMs: 3_600_000,
  bufferAgeMs: 5,
  reserveSegments: 1,
  sparesMax: 2,
};

/** A real volume on a directory of its own, that can be closed, dropped as by `kill -9`, and opened again. */
export class VolumeHarness {
  readonly path: string;
  readonly uuid = new Uint8Array(16).map((_, i) => i + 1);
  readonly cipher = new CipherPool({ threads: 1 });
  readonly io = new Arena(4 * 1024 * 1024);
  readonly #options: HarnessOptions;
  readonly #key: Uint8Array;
  #deks = new Map<number, KeyHandle>();
  #volume: Volume | undefined;

  private constructor(path: string, options: HarnessOptions) {
    this.path = path;
    this.#options = options;
    this.#key = new Uint8Array(32);
    addon.randomFill(this.#key);
  }

  static async create(options: HarnessOptions = {}): Promise<VolumeHarness> {
    const path = await mkdtemp(join(tmpdir(), 'sealbd-volume-'));
    const harness = new VolumeHarness(path, options);
    await harness.open(true);
    return harness;
  }

  get volume(): Volume {
    if (this.#volume === undefined) throw new Error('the volume is not open');
    return this.#volume;
  }

  get suite(): SuiteId {
    return this.#options.suite ?? 2;
  }

  async open(fresh = false, path = this.path): Promise<Volume> {
    const makeStore = this.#options.store ?? ((at: string) => FsStore.open(at, { create: true }));
    if (this.suite !== 0 && this.#deks.size === 0) {
      this.#deks = new Map([[1, addon.keyImport(Uint8Array.from(this.#key))]]);
    }
    this.#volume = await Volume.open({
      name: 'test',
      uuid: this.uuid,
      sizeBytes: this.#options.sizeBytes ?? 64 * 1024 * 1024,
      suite: this.suite,
      deks: this.#deks,
      activeDek: this.suite === 0 ? 0 : 1,
      store: await makeStore(path),
      cipher: this.cipher,
      clock: systemClock,
      log: this.#options.log ?? nullLogger,
      fresh,
      tuning: { ...SMALL_TUNING, ...this.#options.tuning },
    });
    return this.#volume;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.io.bytes.set(bytes, 0);
    await this.volume.write(this.io, 0, offset, bytes.length);
  }

  /** Blocks [from, to) say that they are of this version. */
  async fill(version: number, from: number, to: number): Promise<void> {
    for (let lba = from; lba < to; lba++) await this.write(lba * BLOCK, patternBlock(lba, version));
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    await this.volume.read(this.io, 0, offset, length);
    return this.io.bytes.slice(0, length);
  }

  async stop(): Promise<void> {
    await this.#volume?.stop(10_000);
    this.#volume = undefined;
  }

  async reopen(): Promise<Volume> {
    await this.stop();
    return this.open();
  }

  /** Opens what a `kill -9` at this instant would leave; what the volume did when it was stopped is lost. */
  async dropAfterFlush(): Promise<void> {
    const files = await snapshotOf(this.path);
    await this.stop();
    await rm(this.path, { recursive: true });
    await mkdir(this.path);
    for (const [name, bytes] of files) await writeFile(join(this.path, name), bytes);
    await this.open();
  }

  async destroy(): Promise<void> {
    await this.stop();
    await this.cipher.destroy();
    for (const key of this.#deks.values()) addon.keyRelease(key);
    this.io.free();
    await rm(this.path, { recursive: true, force: true });
  }
}

/** A block whose content says which version of which block it is. */
export function patternBlock(lba: number, version: number): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const words = new Uint32Array(block.buffer);
  let x = (lba * 2654435761 + version * 40503 + 1) >>> 0;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  words[0] = lba;
  words[1] = version;
  return block;
}

/** A seeded generator (mulberry32): the seed replays the run. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
