import type { Clock } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { addon } from '../native/addon.js';
import { encodeHeader, SALT_BYTES, type SegmentKind, segmentFileName } from '../segment/format.js';
import { Segment } from '../segment/segment.js';
import type { SegmentHandles } from '../segment/segment-handles.js';
import { metadataMac } from '../segment/segment-mac.js';
import { SegmentWriter, type WriterContext } from '../segment/segment-writer.js';
import { isDiskFull } from '../store/disk-full.js';
import type { Store, StoreFile } from '../store/store.js';
import type { SegmentTable } from './segment-table.js';
import type { ReserveClaim, SparePool } from './spare-pool.js';
import type { VolumeKeys } from './volume-keys.js';

export interface FactoryOptions {
  readonly store: Store;
  readonly table: SegmentTable;
  readonly handles: SegmentHandles;
  readonly spares: SparePool;
  readonly keys: VolumeKeys;
  readonly clock: Clock;
  readonly uuid: Uint8Array;
  readonly segmentSlots: number;
  nextSegmentId: number;
}

/** Makes new segments: fresh id, fresh salt, header durable under its final name before the first slot. */
export class SegmentFactory {
  readonly #options: FactoryOptions;
  #nextId: number;

  constructor(options: FactoryOptions) {
    this.#options = options;
    this.#nextId = options.nextSegmentId;
  }

  get nextSegmentId(): number {
    return this.#nextId;
  }

  /**
   * A writer for a new segment. `claim` is what it may take of the reserve when the disk is full. What fails before the segment
   * has its name is a SealbdError (ENOSPC, EIO, ENOMEM), and another attempt is harmless; any other error is final,
   * since the name may or may not be on the disk.
   */
  async create(
    kind: SegmentKind,
    previousHeadId: number,
    claim: ReserveClaim,
    context: WriterContext,
  ): Promise<SegmentWriter> {
    const { table, handles, uuid, keys, segmentSlots } = this.#options;
    const index = table.takeIndex();
    const identity = {
      index,
      id: this.#nextId++,
      kind,
      suite: keys.sealing.suite,
      dekId: keys.sealing.id,
      originUuid: uuid,
      // Straight from getrandom(2): a salt must not come from anything that a test or a snapshot can replay.
      salt: new Uint8Array(SALT_BYTES),
    };
    addon.randomFill(identity.salt);
    const segment = new Segment(identity, 0, false);
    try {
      // First of all, since there may be no memory for another key.
      const key = handles.key(segment);
      const file = await this.#file(segment, previousHeadId, claim);
      handles.adopt(segment, file);
      table.add(segment);
      return new SegmentWriter(segment, segmentSlots, file, key, context);
    } catch (error) {
      await handles.drop(segment);
      table.freeIndex(index);
      throw error;
    }
  }

  async #file(segment: Segment, previousHeadId: number, claim: ReserveClaim): Promise<StoreFile> {
    const { store, spares, segmentSlots, keys, clock } = this.#options;
    const name = segmentFileName(segment.id);
    let file: StoreFile | undefined;
    try {
      file = await spares.take(`${name}.tmp`, claim, segment.dekId);
      const { bytes, covered } = encodeHeader({
        ...segment,
        previousHeadId,
        createdAtMs: clock.now(),
        slotsMax: segmentSlots,
      });
      bytes.set(metadataMac(keys.handles)(segment, covered), covered.length);
      await file.write(bytes, 0);
      await file.sync();
    } catch (error) {
      await file?.close();
      await store.remove(`${name}.tmp`);
      const code = isDiskFull(error) ? 'ENOSPC' : 'EIO';
      throw new SealbdError(code, `no new segment: ${messageOf(error)}`, { cause: error });
    }
    await store.rename(`${name}.tmp`, name);
    await store.syncDirectory();
    return file;
  }
}
