/**
 * Replays the tail of the log: the slots behind the last checkpoint (docs/FORMAT.md, "Opening a volume"). It changes
 * nothing on disk; what it finds is the caller's to make durable.
 */
import { bytesEqual } from '../base/bytes.js';
import { SealbdError } from '../base/errors.js';
import { ARENA_CHUNK_BYTES, BLOCK_BYTES, SEGMENT_HEADER_BYTES, SLOT_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import { addon, type KeyHandle, RUN_OK } from '../native/addon.js';
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

export interface RecoveryOptions {
  readonly store: Store;
  readonly table: SegmentTable;
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly uuid: Uint8Array;
  readonly activeDek: number;
  readonly root: CheckpointRoot;
  readonly cipher: CipherPool;
  readonly log: Logger;
  /** `blocks` consecutive blocks from `lba` on are at `slot`. */
  onData(lba: number, blocks: number, slot: number): void;
  onUnmap(lba: number, blocks: number): void;
}

export interface RecoveryResult {
  /** Segments that got slots, which are to be made durable. */
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
    if (header.dekId !== options.activeDek) {
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

async function readHeader(options: RecoveryOptions, id: number): Promise<SegmentHeader> {
  const name = segmentFileName(id);
  const file = await options.store.open(name, 'read');
  try {
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

/** Walks the tail slot by slot. After the first slot that does not authenticate it only collects claims. */
class TailReplay {
  readonly #options: RecoveryOptions;
  readonly #source = new Arena(ARENA_CHUNK_BYTES);
  readonly #plain = new Arena(ARENA_CHUNK_BYTES);
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
    this.#source.free();
    this.#plain.free();
  }

  async segment({ segment, slotsMax }: TailPart): Promise<void> {
    const { store, deks } = this.#options;
    const key = deriveSegmentKey(segment, deks);
    const file = await store.open(segmentFileName(segment.id), 'read');
    try {
      this.#segmentEnded = false;
      let position = segment.slots;
      while (position < slotsMax && !this.#segmentEnded) {
        const slots = await this.#chunk(
          segment,
          file,
          key,
          position,
          Math.min(BUFFER_SLOTS, slotsMax - position),
        );
        if (slots === 0) break;
        position += slots;
      }
      if (position < slotsMax && !this.#segmentEnded) this.#ended = true;
    } finally {
      addon.segmentKeyRelease(key);
      await file.close();
    }
  }

  /** Whole slots that the file had at `position`. */
  async #chunk(
    segment: Segment,
    file: StoreFile,
    key: ReturnType<typeof deriveSegmentKey>,
    position: number,
    slotsMax: number,
  ): Promise<number> {
    const read = await file.read(this.#source.bytes.subarray(0, slotsMax * SLOT_BYTES), slotOffset(position));
    const slots = Math.floor(read / SLOT_BYTES);
    if (slots === 0) return 0;
    const valid = new Uint8Array(slots);
    const status = await this.#options.cipher.run({
      op: 'scan',
      key,
      dst: this.#plain.ref(0),
      src: this.#source.ref(0),
      blocks: slots,
      position,
      valid,
    });
    if (status !== RUN_OK) throw new SealbdError('ESHUTDOWN', 'the key of this volume was taken away');
    this.#replay(segment, position, slots, valid);
    return slots;
  }

  #replay(segment: Segment, position: number, slots: number, valid: Uint8Array): void {
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
      const meta = readSlotMeta(this.#source.bytes, i * SLOT_BYTES);
      this.claimed = Math.max(this.claimed, meta.durable);
      if (this.#ended) continue;
      this.#advance(segment, meta);
      if (meta.kind === SLOT_KIND_EXTENTS) {
        flush();
        this.#unmaps(i);
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

  #unmaps(slot: number): void {
    const at = slot * BLOCK_BYTES;
    const entries = readUnmaps(this.#plain.bytes.subarray(at, at + BLOCK_BYTES));
    if (entries.length === 0) this.#segmentEnded = true;
    for (const { lba, blocks } of entries) this.#options.onUnmap(lba, blocks);
  }
}
