/** A view of a volume as it was at one sequence. It stays as it is, and readable, until it is released. */
import type { SegmentIdentity } from '../segment/segment.js';
import type { RunSource } from './map-file/run-batch.js';

export interface PinnedSegment extends SegmentIdentity {
  /** Positions of it that the view may name: those below, all of them in the file. */
  readonly slots: number;
  /** No slot will be added to its file: the file is final, index included. */
  readonly sealed: boolean;
  /** Why its slots can't be read, where that is so. */
  readonly lost: string | undefined;
}

export interface PinnedVolume {
  /** Every write up to it is in the view, and durable; nothing after it is. */
  readonly sequence: number;
  readonly sizeBytes: number;
  readonly mappedBlocks: number;
  /** By the index that slot addresses of `runs` name. Their files stay as they are. */
  segment(index: number): PinnedSegment | undefined;
  /** The mapped runs in order of block number, without tombstones. May be asked for more than once. */
  runs(): RunSource;
  /** Lets the segments go. Once is enough. */
  release(): Promise<void>;
}
