/**
 * What one pass of a rewriting moves for snapshots (docs/FORMAT.md, "Relocation"): which slots of its victims they name, and
 * where those went. Snapshots name the new places from the next root on; until then both are kept.
 */
import { SEGMENT_SLOTS } from '../base/limits.js';
import type { Segment } from '../segment/segment.js';
import type { ChangeLog } from './change-log.js';
import type { RunSource } from './map-file/run-batch.js';
import { isUnreadable } from './run-files.js';
import type { Holds, SegmentTable } from './segment-table.js';
import type { Snapshots } from './snapshots.js';

interface Victim {
  /** By position: 1 where a snapshot names the slot. */
  readonly named: Uint8Array;
  /** By position: the slot address that it was moved to, or NOT_MOVED. */
  readonly moved: Float64Array;
  /** How many are to be moved still. */
  left: number;
}

const NOT_MOVED = -1;

export class Relocation {
  readonly #table: SegmentTable;
  readonly #victims = new Map<Segment, Victim>();
  /** New segments, and the blocks in each that snapshots are to name. */
  readonly #targets = new Map<Segment, number>();
  moves = 0;
  /** A durable root has all of it. */
  published = false;

  private constructor(table: SegmentTable) {
    this.#table = table;
  }

  /** Looks up what snapshots name of these segments. What one holds whose map can't be read is left where it is. */
  static async of(
    segments: readonly Segment[],
    table: SegmentTable,
    snapshots: Snapshots,
  ): Promise<Relocation> {
    for (;;) {
      const relocation = new Relocation(table);
      if (await relocation.#lookUp(segments, snapshots)) return relocation;
    }
  }

  /** False where a map turned out to be unreadable: half of what it names is no use, and is not to be moved. */
  async #lookUp(segments: readonly Segment[], snapshots: Snapshots): Promise<boolean> {
    const held = segments.filter((segment) => segment.held > 0);
    for (const segment of held) {
      this.#victims.set(segment, {
        named: new Uint8Array(segment.slots),
        moved: new Float64Array(segment.slots).fill(NOT_MOVED),
        left: 0,
      });
    }
    for (const snapshot of snapshots.list) {
      if (snapshot.unreadable !== undefined || !held.some((segment) => snapshot.holds.has(segment))) continue;
      const pin = snapshots.pin(snapshot);
      try {
        await this.#name(pin.runs());
      } catch (error) {
        if (!isUnreadable(error)) throw error;
        snapshots.noteUnreadable(snapshot, error);
        return false;
      } finally {
        await pin.release();
      }
    }
    return true;
  }

  async #name(runs: RunSource): Promise<void> {
    await this.#eachPiece(runs, (victim, _lba, position, blocks) => {
      for (let at = position; at < position + blocks; at++) {
        victim.left += 1 - victim.named[at];
        victim.named[at] = 1;
      }
    });
  }

  /** Visits the pieces of runs that lie in victims. */
  async #eachPiece(
    runs: RunSource,
    visit: (victim: Victim, lba: number, position: number, blocks: number, segment: Segment) => void,
  ): Promise<void> {
    for await (const batch of runs) {
      for (let i = 0; i < batch.count; i++) {
        for (let done = 0; done < batch.blocks[i]; ) {
          const slot = batch.slot[i] + done;
          const position = slot % SEGMENT_SLOTS;
          const blocks = Math.min(batch.blocks[i] - done, SEGMENT_SLOTS - position);
          const segment = this.#table.ofSlot(slot);
          const victim = this.#victims.get(segment);
          if (victim !== undefined) visit(victim, batch.lba[i] + done, position, blocks, segment);
          done += blocks;
        }
      }
    }
  }

  /** Blocks of it that snapshots name and that were not moved yet. */
  blocksOf(segment: Segment): number {
    return this.#victims.get(segment)?.left ?? 0;
  }

  /** Whether a snapshot names the slot. */
  names(segment: Segment, position: number): boolean {
    return this.#victims.get(segment)?.named[position] === 1;
  }

  /** The slot is at `to` as well from now on, in a segment that is kept for it. */
  note(from: Segment, position: number, target: Segment, to: number): void {
    const victim = this.#victims.get(from);
    if (victim === undefined) return;
    victim.moved[position] = to;
    victim.left -= victim.named[position];
    this.moves++;
    target.held++;
    this.#targets.set(target, (this.#targets.get(target) ?? 0) + 1);
  }

  /** Whether something that is held was moved. */
  concerns(holds: Holds): boolean {
    return this.moves > 0 && [...this.#victims.keys()].some((segment) => holds.has(segment));
  }

  /** Notes what changes in the map that these runs make, and returns what it holds then. */
  async follow(runs: RunSource, holds: Holds, changes: ChangeLog): Promise<Holds> {
    const after = new Map(holds);
    const count = (segment: Segment, by: number): void => {
      const blocks = (after.get(segment) ?? 0) + by;
      if (blocks === 0) after.delete(segment);
      else after.set(segment, blocks);
    };
    await this.#eachPiece(runs, (victim, lba, position, blocks, segment) => {
      for (let at = 0; at < blocks; at++) {
        const to = victim.moved[position + at];
        if (to === NOT_MOVED) continue;
        changes.append(lba + at, 1, to);
        count(segment, -1);
        count(this.#table.ofSlot(to), 1);
      }
    });
    return after;
  }

  /** What snapshots name of the new places is theirs to keep now; what they do not name may go. */
  release(): void {
    this.#table.release(this.#targets);
    this.#targets.clear();
  }
}
