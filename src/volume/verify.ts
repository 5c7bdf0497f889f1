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
import type { SegmentTable } from './segment-table.js';

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
  readonly store: Store;
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly sizeBytes: number;
}

const STEP_BLOCKS = ARENA_CHUNK_BYTES / BLOCK_BYTES;
/** Blocks of a run that one look at the map may cover. */
const LOOKAHEAD_BLOCKS = 65_536;
const TURN_MS = 2;

/** Reads and authenticates every stored block and every segment header, while the volume serves. */
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
  } finally {
    blocks.free();
  }
  return { checkedBlocks: blocks.checked, lost: blocks.lost, problems };
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
  readonly lost: { offset: number; length: number }[] = [];
  #turnStarted = performance.now();
  checked = 0;

  constructor(context: VerifyContext, options: VerifyOptions) {
    this.#context = context;
    this.#options = options;
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
      const { map } = this.#context;
      // Overwritten or moved meanwhile: then its old slot is nobody's loss.
      if (map.get(bad) === slot + bad - lba) this.#lose(bad);
      from = bad - lba + 1;
      if (from < blocks && map.get(lba + from) !== slot + from) break;
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
