/** Which segments nobody needs any more, and what becomes of their files once no durable root names them. */
import { type Clock, sleep } from '../base/clock.js';
import { errnoOf, messageOf } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { segmentFileName } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import type { SegmentHandles } from '../segment/segment-handles.js';
import type { Compactor } from './compactor.js';
import type { Eraser } from './eraser.js';
import type { HeadLog } from './head-log.js';
import type { SegmentTable } from './segment-table.js';
import type { SparePool } from './spare-pool.js';
import type { VolumeKeys } from './volume-keys.js';

export interface RetirementOptions {
  readonly table: SegmentTable;
  readonly handles: SegmentHandles;
  readonly spares: SparePool;
  readonly eraser: Eraser;
  readonly keys: VolumeKeys;
  readonly head: HeadLog;
  readonly compactor: Compactor;
  readonly clock: Clock;
  readonly log: Logger;
}

const PIN_WAIT_MS = 2;

export class Retirement {
  readonly #options: RetirementOptions;
  #closed = false;
  retired = 0;

  constructor(options: RetirementOptions) {
    this.#options = options;
  }

  /** Nothing writes its file any more, or reads it for compaction. */
  isFinal(segment: Segment): boolean {
    const { head, compactor } = this.#options;
    return segment.sealed && segment.buffers.length === 0 && !head.uses(segment) && !compactor.uses(segment);
  }

  /** Neither the map nor a snapshot nor a pin names a slot of it. */
  isDead(segment: Segment): boolean {
    return segment.live === 0 && !this.#options.table.isHeld(segment) && this.isFinal(segment);
  }

  /** What the published root names no more goes. A failure here is no failure of the checkpoint. */
  async letGo(dead: readonly Segment[]): Promise<void> {
    for (const segment of dead) {
      if (this.#closed) return;
      await this.#quietly('a file of a dead segment could not be let go of', () => this.#retire(segment));
    }
    await this.fillReserve();
  }

  async fillReserve(): Promise<void> {
    if (this.#closed) return;
    await this.#quietly('the reserve could not be filled', () => this.#options.spares.fillReserve());
  }

  /** Nothing is let go of any more. */
  close(): void {
    this.#closed = true;
  }

  async #quietly(problem: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#options.log.error({ reason: messageOf(error) }, problem);
    }
  }

  /** The root that names this segment no more is durable: its file may be used again once nobody reads it. */
  async #retire(segment: Segment): Promise<void> {
    const { table, handles, spares, eraser, keys } = this.#options;
    while (segment.pins > 0) await sleep(this.#options.clock, PIN_WAIT_MS);
    table.remove(segment);
    await handles.drop(segment);
    const name = segmentFileName(segment.id);
    try {
      if (keys.erases(segment)) eraser.add(name);
      // A lost segment has no file to reuse.
      else if (segment.lost !== undefined) await spares.put(name, 'remove');
      else await spares.put(name, keys.recycles(segment) ? 'recycle' : 'overwrite');
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    } finally {
      table.freeIndex(segment.index);
      this.retired++;
    }
  }
}
