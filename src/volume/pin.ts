/** A cut of the volume that is kept: its map on disk, and the segments that this map names. */
import type { Segment, SegmentIdentity } from '../segment/segment.js';
import type { RunRef } from './checkpoint-root.js';
import type { RunSource } from './map-file/run-batch.js';
import { type RunFilesOptions, readRuns } from './run-files.js';
import type { Holds, SegmentTable } from './segment-table.js';

export interface PinnedSegment extends SegmentIdentity {
  /** Positions of it that the cut may name: those below, all of them in the file. */
  readonly slots: number;
  /** Blocks of it that the cut names. */
  readonly blocks: number;
  /** No slot will be added to its file: the file is final, index included. */
  readonly sealed: boolean;
  /** Why its slots can't be read, where that is so. */
  readonly lost: string | undefined;
}

/** A volume as it was at one cut. It stays as it is, and readable, until it is released. */
export interface PinnedVolume {
  /** Every write up to it is in the cut, and durable; nothing after it is. */
  readonly sequence: number;
  readonly sizeBytes: number;
  readonly mappedBlocks: number;
  /** Unix ms. */
  readonly createdAtMs: number;
  /** Those that the cut names, in no order. */
  segments(): PinnedSegment[];
  /** By the index that slot addresses of `runs` name (slot address = index * SEGMENT_SLOTS + position). */
  segment(index: number): PinnedSegment | undefined;
  /**
   * The mapped runs in order of block number, without tombstones; may be asked for more than once. A batch is valid until the
   * next one is asked for. Throws INTEGRITY where a map file does not authenticate.
   */
  runs(): RunSource;
  /** Lets the segments go. Once is enough. */
  release(): Promise<void>;
}

export interface CutFacts {
  /** Unix ms. */
  readonly createdAtMs: number;
  readonly lastSequence: number;
  /** Of the device. */
  readonly sizeBytes: number;
  readonly mappedBlocks: number;
  /** All segments that it names have lower ids. */
  readonly segmentIdEnd: number;
}

export interface PinOptions {
  readonly files: RunFilesOptions;
  readonly table: SegmentTable;
  /** Nothing writes the file of the segment any more. */
  isFinal(segment: Segment): boolean;
  onRelease(pin: Pin): Promise<void>;
}

export class Pin implements PinnedVolume {
  readonly facts: CutFacts;
  readonly holds: Holds;
  /** Map files of its cut, oldest first; none before its checkpoint is durable. */
  files: readonly RunRef[] = [];
  readonly #options: PinOptions;
  /** Segments that may have got slots since, and how many they had. */
  readonly #slots = new Map<Segment, number>();
  #released: Promise<void> | undefined;

  constructor(facts: CutFacts, holds: Holds, options: PinOptions) {
    this.facts = facts;
    this.holds = holds;
    this.#options = options;
    for (const segment of holds.keys()) if (!segment.sealed) this.#slots.set(segment, segment.slots);
  }

  get sequence(): number {
    return this.facts.lastSequence;
  }

  get sizeBytes(): number {
    return this.facts.sizeBytes;
  }

  get mappedBlocks(): number {
    return this.facts.mappedBlocks;
  }

  get createdAtMs(): number {
    return this.facts.createdAtMs;
  }

  segments(): PinnedSegment[] {
    return [...this.holds].map(([segment, blocks]) => this.#view(segment, blocks));
  }

  segment(index: number): PinnedSegment | undefined {
    const segment = this.#options.table.byIndex(index);
    const blocks = segment === undefined ? undefined : this.holds.get(segment);
    return segment === undefined || blocks === undefined ? undefined : this.#view(segment, blocks);
  }

  #view(segment: Segment, blocks: number): PinnedSegment {
    const { index, id, kind, suite, dekId, originUuid, salt, lost } = segment;
    const slots = this.#slots.get(segment) ?? segment.slots;
    const sealed = this.#options.isFinal(segment);
    return { index, id, kind, suite, dekId, originUuid, salt, slots, blocks, sealed, lost };
  }

  runs(): RunSource {
    if (this.#released !== undefined) throw new Error('the pin was released');
    return readRuns(this.#options.files, this.files);
  }

  release(): Promise<void> {
    this.#released ??= this.#options.onRelease(this);
    return this.#released;
  }
}
