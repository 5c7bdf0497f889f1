/**
 * Replays the tail of the log: the slots behind the last checkpoint (docs/FORMAT.md, "Opening a volume"). It changes
 * nothing but where the tail is: what the page cache holds of it goes to the medium, and is read from there again.
 */
import { bytesEqual } from '../base/bytes.js';
import { SealbdError } from '../base/errors.js';
import { ARENA_CHUNK_BYTES, BLOCK_BYTES, SEGMENT_HEADER_BYTES, SLOT_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import { addon, type KeyHandle, RUN_OK, type SegmentKeyHandle } from '../native/addon.js';
import { Arena } from '../native/arena.js';
import { BUFFER_SLOTS } from '../segment/append-buffer.js';
import {
  decodeHeader,
  readSlotMeta,
  readUnmaps,
  SEGMENT_KIND_HEAD,
  type SegmentHeader,
  SLOT_KIND_DATA,
  SLOT_KIND_EXTENTS,
  type SlotMeta,
  segmentFileName,
  slotOffset,
} from '../segment/format.js';
import { Segment } from '../segment/segment.js';
import { deriveSegmentKey } from '../segment/segment-handles.js';
import { verifyMetadataMac } from '../segment/segment-mac.js';
import type { Store, StoreFile } from '../store/store.js';
import type { CheckpointRoot } from './checkpoint-root.js';
import type { SegmentTable } from './segment-table.js';
import type { VolumeKeys } from './volume-keys.js';

export interface RecoveryOptions {
  readonly store: Store;
  readonly table: SegmentTable;
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly uuid: Uint8Array;
  readonly keys: VolumeKeys;
  readonly root: CheckpointRoot;
  readonly cipher: CipherPool;
  readonly log: Logger;
  /** `blocks` consecutive blocks from `lba` on are at `slot`. */
  onData(lba: number, blocks: number, slot: number): void;
  onUnmap(lba: number, blocks: number): void;
}

export interface RecoveryResult {
  /** Segments that got slots. */
  readonly replayed: Segment[];
  /** Ids of segment files that nothing needs. */
  readonly unused: number[];
  readonly lastSequence: number;
  /** Above every id in use. */
  readonly nextSegmentId: number;
  readonly slots: number;
}

const MISSING = -1;

interface TailPart {
  readonly segment: Segment;
  readonly slotsMax: number;
}

/** `ids`: the segment files that exist. */
export async function replayTail(options: RecoveryOptions, ids: readonly number[]): Promise<RecoveryResult> {
  const { root, table, log } = options;
  const { tail, unused, nextSegmentId } = await findTail(options, ids);
  const replay = new TailReplay(options);
  try {
    for (const part of tail) await replay.segment(part);
  } finally {
    replay.free();
  }
  if (replay.claimed > replay.lastSequence) {
    throw new SealbdError(
      'INTEGRITY',
      `the log is damaged: writes up to ${replay.claimed} were durable, but only those up to ${replay.lastSequence} are there`,
    );
  }
  const replayed: Segment[] = [];
  for (const { segment } of tail) {
    if (table.byIndex(segment.index) !== segment) unused.push(segment.id);
    else if (segment.slots > 0) replayed.push(segment);
  }
  if (replay.slots > 0)
    log.info({ slots: replay.slots, generation: root.generation }, 'replayed the tail of the log');
  return { replayed, unused, lastSequence: replay.lastSequence, nextSegmentId, slots: replay.slots };
}

/** The head segments that may hold slots behind the cut, in order. A gap in their chain is damage. */
async function findTail(
  options: RecoveryOptions,
  ids: readonly number[],
): Promise<{ tail: TailPart[]; unused: number[]; nextSegmentId: number }> {
  const { root, table } = options;
  const named = new Map<number, Segment>();
  for (const segment of table.all()) named.set(segment.id, segment);
  const tail: TailPart[] = [];
  const unused: number[] = [];
  let nextSegmentId = root.nextSegmentId;
  // Where the open head itself is missing, nothing may follow it.
  let previous = root.headId === 0 || ids.includes(root.headId) ? root.headId : MISSING;
  for (const id of [...ids].sort((a, b) => a - b)) {
    nextSegmentId = Math.max(nextSegmentId, id + 1);
    const known = named.get(id);
    if (known !== undefined && id !== root.headId) continue;
    if (known === undefined && id < root.nextSegmentId && id !== root.preparedId) {
      unused.push(id);
      continue;
    }
    const header = await readHeader(options, id);
    if (known !== undefined) {
      known.sealed = true;
      tail.push({ segment: known, slotsMax: header.slotsMax });
      continue;
    }
    if (header.kind !== SEGMENT_KIND_HEAD) {
      unused.push(id);
      continue;
    }
    // Every volume writes its own tail. Another one's, under a DEK that both know, must not be replayed here.
    if (!options.keys.trusts(header.dekId)) {
      throw new SealbdError(
        'INTEGRITY',
        `${segmentFileName(id)} is under DEK ${header.dekId}, not under the active one`,
      );
    }
    if (!bytesEqual(header.originUuid, options.uuid)) {
      throw new SealbdError('INTEGRITY', `${segmentFileName(id)} was written by another volume`);
    }
    if (header.previousHeadId !== previous) {
      throw new SealbdError(
        'INTEGRITY',
        `${segmentFileName(id)} follows segment ${header.previousHeadId}, which is missing`,
      );
    }
    previous = id;
    tail.push({
      segment: new Segment({ ...header, index: table.takeIndex() }, 0, true),
      slotsMax: header.slotsMax,
    });
  }
  return { tail, unused, nextSegmentId };
}

/** From here on the file is what the medium holds of it: a slot that only the page cache had must not get into the map. */
async function readHeader(options: RecoveryOptions, id: number): Promise<SegmentHeader> {
  const name = segmentFileName(id);
  const file = await options.store.open(name, 'read');
  try {
    await file.reload();
    const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
    if ((await file.read(bytes, 0)) !== bytes.length)
      throw new SealbdError('INTEGRITY', `${name} has no whole header`);
    const { header, covered, mac } = decodeHeader(bytes);
    if (header.id !== id) throw new SealbdError('INTEGRITY', `${name} holds segment ${header.id}`);
    if (!verifyMetadataMac(options.deks, header, covered, mac)) {
      throw new SealbdError('INTEGRITY', `the header of ${name} does not authenticate`);
    }
    return header;
  } finally {
    await file.close();
  }
}

/** A piece of the tail on its way: read, checked and decrypted by the pool, then replayed in its turn. */
class TailChunk {
  readonly source = new Arena(ARENA_CHUNK_BYTES);
  readonly plain = new Arena(ARENA_CHUNK_BYTES);
  position = 0;
  /** Whole slots that the file had. */
  slots = 0;
  valid = new Uint8Array(0);

  free(): void {
    this.source.free();
    this.plain.free();
  }
}

/** Chunks that are loaded ahead of the replay. */
const CHUNKS_AHEAD = 3;

/** Walks the tail slot by slot. After the first slot that does not authenticate it only collects claims. */
class TailReplay {
  readonly #options: RecoveryOptions;
  readonly #chunks = Array.from({ length: CHUNKS_AHEAD }, () => new TailChunk());
  /** A slot did not authenticate: what follows, in whatever segment, was never flushed. */
  #ended = false;
  /** A slot said that the log goes on in the next segment. */
  #segmentEnded = false;
  lastSequence: number;
  /** The highest sequence that some authentic slot says was durable. */
  claimed: number;
  slots = 0;

  constructor(options: RecoveryOptions) {
    this.#options = options;
    this.lastSequence = options.root.lastSequence;
    this.claimed = options.root.lastSequence;
  }

  free(): void {
    for (const chunk of this.#chunks) chunk.free();
  }

  async segment({ segment, slotsMax }: TailPart): Promise<void> {
    const { store, deks } = this.#options;
    const key = deriveSegmentKey(segment, deks);
    const file = await store.open(segmentFileName(segment.id), 'read');
    this.#segmentEnded = false;
    const loading: Promise<TailChunk>[] = [];
    let next = segment.slots;
    let position = segment.slots;
    try {
      const idle = [...this.#chunks];
      while (position < slotsMax && !this.#segmentEnded) {
        for (; idle.length > 0 && next < slotsMax; next += BUFFER_SLOTS) {
          const load = this.#load(idle.pop()!, file, key, next, Math.min(BUFFER_SLOTS, slotsMax - next));
          load.catch(() => undefined); // Told when its turn comes, if it comes.
          loading.push(load);
        }
        const chunk = await loading[0];
        loading.shift();
        this.#replay(segment, chunk);
        idle.push(chunk);
        position = chunk.position + chunk.slots;
        if (chunk.slots < Math.min(BUFFER_SLOTS, slotsMax - chunk.position)) break; // The file ends here.
      }
      if (position < slotsMax && !this.#segmentEnded) this.#ended = true;
    } finally {
      await Promise.allSettled(loading); // They write to the chunks, and use the key and the file.
      addon.segmentKeyRelease(key);
      await file.close();
    }
  }

  async #load(
    chunk: TailChunk,
    file: StoreFile,
    key: SegmentKeyHandle,
    position: number,
    slotsMax: number,
  ): Promise<TailChunk> {
    const read = await file.read(chunk.source.bytes.subarray(0, slotsMax * SLOT_BYTES), slotOffset(position));
    chunk.position = position;
    chunk.slots = Math.floor(read / SLOT_BYTES);
    chunk.valid = new Uint8Array(chunk.slots);
    if (chunk.slots === 0) return chunk;
    const status = await this.#options.cipher.run({
      op: 'scan',
      key,
      dst: chunk.plain.ref(0),
      src: chunk.source.ref(0),
      blocks: chunk.slots,
      position,
      valid: chunk.valid,
    });
    if (status !== RUN_OK) throw new SealbdError('ESHUTDOWN', 'the key of this volume was taken away');
    return chunk;
  }

  #replay(segment: Segment, { position, slots, valid, source, plain }: TailChunk): void {
    const run = { lba: 0, blocks: 0, slot: 0 };
    const flush = (): void => {
      if (run.blocks > 0) this.#options.onData(run.lba, run.blocks, run.slot);
      run.blocks = 0;
    };
    for (let i = 0; i < slots && !this.#segmentEnded; i++) {
      if (valid[i] === 0) {
        this.#ended = true;
        continue;
      }
      const meta = readSlotMeta(source.bytes, i * SLOT_BYTES);
      this.claimed = Math.max(this.claimed, meta.durable);
      if (this.#ended) continue;
      this.#advance(segment, meta);
      if (meta.kind === SLOT_KIND_EXTENTS) {
        flush();
        this.#unmaps(plain.bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
        continue;
      }
      if (meta.kind !== SLOT_KIND_DATA)
        throw new SealbdError('INTEGRITY', `slot kind ${meta.kind} is unknown`);
      const slot = segment.slotAddress(position + i);
      if (run.blocks > 0 && meta.lba === run.lba + run.blocks) run.blocks++;
      else {
        flush();
        run.lba = meta.lba;
        run.slot = slot;
        run.blocks = 1;
      }
    }
    flush();
  }

  /** An authentic slot in its turn: sequences must grow. */
  #advance(segment: Segment, meta: SlotMeta): void {
    if (meta.sequence <= this.lastSequence) {
      throw new SealbdError('INTEGRITY', `sequence ${meta.sequence} follows ${this.lastSequence} in the log`);
    }
    if (this.#options.table.byIndex(segment.index) !== segment) this.#options.table.add(segment);
    this.lastSequence = meta.sequence;
    segment.slots++;
    this.slots++;
  }

  #unmaps(block: Uint8Array): void {
    const entries = readUnmaps(block);
    if (entries.length === 0) this.#segmentEnded = true;
    for (const { lba, blocks } of entries) this.#options.onUnmap(lba, blocks);
  }
}
