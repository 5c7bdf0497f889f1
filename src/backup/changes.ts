/** What a backup has to hold: the mapped runs of a cut, or those that differ from its base, and the slots that they name. */

import { SealbdError } from '../base/errors.js';
import { SEGMENT_SLOTS, SEGMENTS_MAX } from '../base/limits.js';
import { SEGMENT_KIND_HEAD } from '../segment/format.js';
import type { SegmentIdentity } from '../segment/segment.js';
import { UNMAPPED } from '../volume/block-map.js';
import { type RunBatch, RunOutput, type RunSource } from '../volume/map-file/run-batch.js';
import { type ChainSegment, cutAtSegments, isSameSegment } from './chain-map.js';
import { type Difference, differences } from './map-diff.js';
import type { SameWrites } from './same-writes.js';
import { SlotSet } from './slot-set.js';

/** A segment that the backup needs slots of; `index` is the chain's. */
export interface NeededSegment<Source extends SegmentIdentity> {
  readonly index: number;
  readonly source: Source;
  readonly slots: SlotSet;
}

/** Gives the segments of a volume the indexes that they have in a chain of backups. */
export class ChainIndexes<Source extends SegmentIdentity> {
  readonly #ofVolume = new Map<number, number>();
  readonly #segments = new Map<number, NeededSegment<Source>>();
  next: number;

  constructor(segments: Iterable<Source>, base: ReadonlyMap<number, ChainSegment>, next: number) {
    this.next = next;
    const byId = new Map([...base.values()].map((known) => [known.id, known]));
    for (const source of segments) {
      const known = byId.get(source.id);
      if (known !== undefined && !isSameSegment(known, source)) throw setBack(source);
      const index = known?.index ?? this.#take();
      this.#ofVolume.set(source.index, index);
      this.#segments.set(index, { index, source, slots: new SlotSet() });
    }
  }

  #take(): number {
    if (this.next >= SEGMENTS_MAX)
      throw new SealbdError('FAILED', `a chain of more than ${SEGMENTS_MAX} segments: make a full backup`);
    return this.next++;
  }

  /** By index of the volume. */
  of(index: number): number {
    const known = this.#ofVolume.get(index);
    if (known === undefined) throw new SealbdError('INTEGRITY', `segment index ${index} is not held`);
    return known;
  }

  /** By index of the chain. */
  get(index: number): NeededSegment<Source> {
    return this.#segments.get(index)!;
  }

  /** Those that something is needed of, by index. */
  needed(): NeededSegment<Source>[] {
    return [...this.#segments.values()]
      .filter(({ slots }) => slots.count > 0)
      .sort((a, b) => a.index - b.index);
  }
}

/** An id is never used again: another segment of that id is of another history. Both could not be in one restored volume. */
function setBack({ id }: SegmentIdentity): SealbdError {
  const why = `segment ${id} is another one in the base, since the directory of the volume was set back`;
  return new SealbdError('CONFLICT', `${why}: make a full backup`);
}

export interface ChangesOptions<Source extends SegmentIdentity> {
  readonly indexes: ChainIndexes<Source>;
  /** The map of the cut, with addresses of the volume. */
  readonly present: RunSource;
  /** The map of the base, with addresses of the chain; undefined for a full backup. */
  readonly base: RunSource | undefined;
  readonly sameWrites: SameWrites | undefined;
  readonly signal: AbortSignal;
}

/** The runs of the backup's map, in order. What they name is in `indexes` once they were read to the end. */
export async function* changes<Source extends SegmentIdentity>({
  indexes,
  present,
  base,
  sameWrites,
  signal,
}: ChangesOptions<Source>): AsyncGenerator<RunBatch> {
  const out = new RunOutput(BATCH_RUNS, false);
  for await (const batch of differences(
    base ?? [],
    cutAtSegments(present, (index) => indexes.of(index)),
  )) {
    signal.throwIfAborted();
    for (const difference of batch) {
      for (const { lba, blocks, after } of await changed(difference, indexes, sameWrites)) {
        if (after !== UNMAPPED) {
          const position = after % SEGMENT_SLOTS;
          indexes.get((after - position) / SEGMENT_SLOTS).slots.add(position, blocks);
        }
        out.add(lba, blocks, after);
        if (!out.full) continue;
        yield out.batch;
        out.batch.count = 0;
      }
    }
  }
  out.finish();
  if (out.batch.count > 0) yield out.batch;
}

const BATCH_RUNS = 1024;

/** The parts of a difference that are more than a move. */
async function changed<Source extends SegmentIdentity>(
  difference: Difference,
  indexes: ChainIndexes<Source>,
  sameWrites: SameWrites | undefined,
): Promise<Difference[]> {
  const { lba, blocks, before, after } = difference;
  if (before === UNMAPPED || after === UNMAPPED || sameWrites === undefined) return [difference];
  const { source } = indexes.get(Math.floor(after / SEGMENT_SLOTS));
  if (source.kind === SEGMENT_KIND_HEAD) return [difference];
  const same = await sameWrites.compare(difference);
  const parts: Difference[] = [];
  for (let from = 0; from < blocks; ) {
    let to = from + 1;
    while (to < blocks && same[to] === same[from]) to++;
    if (same[from] === 0)
      parts.push({ lba: lba + from, blocks: to - from, before: before + from, after: after + from });
    from = to;
  }
  return parts;
}
