import type { SegmentKeyHandle } from '../native/addon.js';
import type { StoreFile } from '../store/store.js';
import { slotOffset } from './format.js';
import type { ReadRun } from './segment-reader.js';

/** Numbers that tell the addon of one run. */
const FIELDS = 7;

/** Runs of one request that the addon reads in one call. Their segments are pinned: no other run takes key or file away. */
export class ReadBatch {
  /** As `addon.readRuns` takes them. */
  readonly values: Float64Array;
  readonly runs: ReadRun[] = [];

  constructor(runsMax: number) {
    this.values = new Float64Array(FIELDS * runsMax);
  }

  get count(): number {
    return this.runs.length;
  }

  add(run: ReadRun, key: SegmentKeyHandle, file: StoreFile): void {
    const { segment, position, blocks, lba, dst, dstOffset } = run;
    const at = FIELDS * this.runs.length;
    this.values[at] = key;
    this.values[at + 1] = file.fd;
    this.values[at + 2] = slotOffset(position);
    this.values[at + 3] = blocks;
    this.values[at + 4] = dst.ref(dstOffset);
    this.values[at + 5] = position;
    this.values[at + 6] = lba;
    this.runs.push(run);
    segment.pins++;
  }

  release(): void {
    for (const { segment } of this.runs) segment.pins--;
  }
}
