import { setImmediate } from 'node:timers/promises';
import { isSealbdError, messageOf } from '../base/errors.js';
import { ARENA_CHUNK_BYTES, BLOCK_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_SLOTS } from '../base/limits.js';
import { addon, type KeyHandle } from '../native/addon.js';
import { Arena } from '../native/arena.js';
import { decodeHeader, segmentFileName } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import { verifyMetadataMac } from '../segment/segment-mac.js';
import type { SegmentReader } from '../segment/segment-reader.js';
import type { Store } from '../store/store.js';
import { type BlockMap, UNMAPPED } from './block-map.js';
import type { Pin } from './pin.js';
import { isUnreadable } from './run-files.js';
import type { SegmentTable } from './segment-table.js';
import type { Snapshot } from './snapshot.js';
import type { Snapshots } from './snapshots.js';

export interface VerifyOptions {
  readonly signal: AbortSignal;
  onProgress(doneBytes: number, totalBytes: number): void;
}

export interface VerifyResult {
  readonly checkedBlocks: number;
  /** Byte ranges of the device that can't be read back. */
  readonly lost: { offset: number; length: number }[];
  /** What else does not authenticate, in words. */
  readonly problems: string[];
}

export interface VerifyContext {
  readonly map: BlockMap;
  readonly table: SegmentTable;
  readonly reader: SegmentReader;
  readonly snapshots: Snapshots;
  readonly store: Store;
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly sizeBytes: number;
}

const STEP_BLOCKS = ARENA_CHUNK_BYTES / BLOCK_BYTES;
/** Blocks of a run that one look at the map may cover. */
const LOOKAHEAD_BLOCKS = 65_536;
const TURN_MS = 2;

/** Reads and authenticates every stored block, those of snapshots too, and every segment header, while the volume serves. */
export async function verifyVolume(context: VerifyContext, options: VerifyOptions): Promise<VerifyResult> {
  const problems: string[] = [];
  for (const segment of [...context.table.all()]) {
    options.signal.throwIfAborted();
    const problem = await headerProblem(context, segment);
    if (problem !== undefined) problems.push(`${segmentFileName(segment.id)}: ${problem}`);
  }
  const blocks = new BlockCheck(context, options);
  try {
    await blocks.run();
    const { lost } = blocks;
    // One that was deleted meanwhile has no files any more.
    for (const snapshot of context.snapshots.list)
      if (context.snapshots.list.includes(snapshot)) problems.push(...(await blocks.snapshot(snapshot)));
    return { checkedBlocks: blocks.checked, lost, problems };
  } finally {
    blocks.free();
  }
}

async function headerProblem(context: VerifyContext, segment: Segment): Promise<string | undefined> {
  segment.pins++;
  try {
    if (context.table.byIndex(segment.index) !== segment) return undefined; // Compacted away meanwhile.
    const file = await context.store.open(segmentFileName(segment.id), 'read');
    try {
      const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
      if ((await file.read(bytes, 0)) !== bytes.length) return 'the header is not whole';
      const { header, covered, mac } = decodeHeader(bytes);
      if (header.id !== segment.id) return `the header is that of segment ${header.id}`;
      return verifyMetadataMac(context.deks, segment, covered, mac)
        ? undefined
        : 'the header does not authenticate';
    } finally {
      await file.close();
    }
  } catch (error) {
    return messageOf(error);
  } finally {
    segment.pins--;
  }
}

class BlockCheck {
  readonly #context: VerifyContext;
  readonly #options: VerifyOptions;
  readonly #scratch = new Arena(ARENA_CHUNK_BYTES);
  lost: { offset: number; length: number }[] = [];
  /** Whether a block that could not be read was to be found there still. */
  #isNamed: (lba: number, slot: number) => boolean;
  #turnStarted = performance.now();
  checked = 0;

  constructor(context: VerifyContext, options: VerifyOptions) {
    this.#context = context;
    this.#options = options;
    // Overwritten or moved meanwhile: then its old slot is nobody's loss.
    this.#isNamed = (lba, slot) => context.map.get(lba) === slot;
  }

  free(): void {
    this.#scratch.free();
  }

  async run(): Promise<void> {
    const { map, sizeBytes } = this.#context;
    const end = Math.ceil(sizeBytes / BLOCK_BYTES);
    const run = { slot: 0, blocks: 0 };
    for (let lba = 0; lba < end; lba += run.blocks) {
      this.#options.signal.throwIfAborted();
      await this.#yield();
      map.runAt(lba, Math.min(end - lba, LOOKAHEAD_BLOCKS), run);
      if (run.slot === UNMAPPED) continue;
      run.blocks = Math.min(run.blocks, STEP_BLOCKS, SEGMENT_SLOTS - (run.slot % SEGMENT_SLOTS));
      await this.#check(lba, run.blocks, run.slot);
      this.#options.onProgress(this.checked * BLOCK_BYTES, map.mappedBlocks * BLOCK_BYTES);
    }
  }

  /** What the snapshot has that the volume does not have any more; what is wrong with it, in words. */
  async snapshot(snapshot: Snapshot): Promise<string[]> {
    const what = `snapshot "${snapshot.name}"`;
    if (snapshot.problem !== undefined) return [`${what}: ${snapshot.problem}`];
    const pin = this.#context.snapshots.pin(snapshot);
    this.lost = [];
    this.#isNamed = () => true;
    try {
      await this.#pinned(pin);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      return [`${what}: ${messageOf(error)}`];
    } finally {
      await pin.release();
    }
    return this.lost.map(({ offset, length }) => `${what}: ${length} bytes at ${offset} can not be read`);
  }

  async #pinned(pin: Pin): Promise<void> {
    const { map } = this.#context;
    for await (const batch of pin.runs()) {
      for (let i = 0; i < batch.count; i++) {
        const [lba, blocks, slot] = [batch.lba[i], batch.blocks[i], batch.slot[i]];
        for (let at = 0; at < blocks; ) {
          const left = Math.min(blocks - at, STEP_BLOCKS, SEGMENT_SLOTS - ((slot + at) % SEGMENT_SLOTS));
          // What the volume has as well was checked with it.
          let own = 0;
          while (own < left && map.get(lba + at + own) !== slot + at + own) own++;
          if (own > 0) {
            this.#options.signal.throwIfAborted();
            await this.#yield();
            await this.#check(lba + at, own, slot + at);
          }
          at += Math.max(own, 1);
        }
      }
    }
  }

  /** Cached blocks are checked without waiting for anything: clients need their turn all the same. */
  async #yield(): Promise<void> {
    if (performance.now() - this.#turnStarted < TURN_MS) return;
    await setImmediate();
    this.#turnStarted = performance.now();
  }

  /** Checks a run; after a block that is lost it goes on with the next one. */
  async #check(lba: number, blocks: number, slot: number): Promise<void> {
    let from = 0;
    while (from < blocks) {
      const bad = await this.#firstBad(lba + from, blocks - from, slot + from);
      if (bad === undefined) break;
      if (this.#isNamed(bad, slot + bad - lba)) this.#lose(bad);
      from = bad - lba + 1;
      if (from < blocks && !this.#isNamed(lba + from, slot + from)) break;
    }
    this.checked += blocks;
  }

  /** The block number of the first block that can't be read, if there is one. */
  async #firstBad(lba: number, blocks: number, slot: number): Promise<number | undefined> {
    const { reader, table } = this.#context;
    const run = { position: slot % SEGMENT_SLOTS, blocks, lba, dst: this.#scratch, dstOffset: 0 };
    try {
      await reader.read({ ...run, segment: table.ofSlot(slot) });
      return undefined;
    } catch (error) {
      if (!isSealbdError(error, 'EIO')) throw error;
      return error.deviceOffset === undefined ? lba : Math.floor(error.deviceOffset / BLOCK_BYTES);
    } finally {
      addon.wipe(this.#scratch.bytes.subarray(0, blocks * BLOCK_BYTES));
    }
  }

  #lose(lba: number): void {
    const offset = lba * BLOCK_BYTES;
    const last = this.lost.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += BLOCK_BYTES;
    else this.lost.push({ offset, length: BLOCK_BYTES });
  }
}
