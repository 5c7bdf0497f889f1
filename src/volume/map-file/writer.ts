import { setImmediate } from 'node:timers/promises';
import { addon, type KeyHandle } from '../../native/addon.js';
import { MAC_BYTES } from '../../segment/format.js';
import {
  CHUNK_FRAME_BYTES,
  CHUNK_KIND_MAP,
  CHUNK_KIND_SEGMENTS,
  encodeChunkFrame,
  encodeHeader,
  encodeSegmentEntry,
  HEADER_BYTES,
  type MapFileCounts,
  type MapFileName,
  macContext,
  SEGMENT_ENTRY_BYTES,
  type SegmentEntry,
} from './codec.js';
import { MAP_ENTRY_BYTES_MAX, putMapEntry } from './entry-codec.js';
import type { RunSource } from './run-batch.js';

export const MAP_LABEL = 'sealbd/v1/map';

/** Chunks are smaller than they may be, so that one is made, or read and loaded, in a millisecond or so. */
const PAYLOAD_BYTES = 128 * 1024;
const ENTRIES_PER_CHUNK_MAX = 16_384;
/** The chunk number precedes the frame in memory, because the MAC covers both. */
const NUMBER_BYTES = 4;
const PAYLOAD_OFFSET = NUMBER_BYTES + CHUNK_FRAME_BYTES;

export interface MapFileIdentity extends MapFileName {
  readonly key: KeyHandle;
}

export interface MapFileSink {
  /** Writes all of `bytes`, which are the writer's again once the promise has settled. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
}

export interface MapFileTotals extends MapFileCounts {
  readonly bytes: number;
}

/** Sorted by index, each index once. */
export type SegmentSource = AsyncIterable<SegmentEntry> | Iterable<SegmentEntry>;

/**
 * Writes a map file of sorted runs and sorted segment entries, in chunks; other work gets its turn after each.
 * The segments are taken first, the header is written last. It does not sync.
 */
export async function writeMapFile(
  sink: MapFileSink,
  identity: MapFileIdentity,
  runs: RunSource,
  segments: SegmentSource,
): Promise<MapFileTotals> {
  const writer = new ChunkWriter(sink, identity);
  let segmentEntries = 0;
  for await (const entry of segments) {
    if (!writer.fits(SEGMENT_ENTRY_BYTES)) await writer.flush(CHUNK_KIND_SEGMENTS);
    writer.putSegment(entry);
    segmentEntries += 1;
  }
  await writer.flush(CHUNK_KIND_SEGMENTS);
  let mapEntries = 0;
  for await (const batch of runs) {
    for (let i = 0; i < batch.count; i++) {
      if (!writer.fits(MAP_ENTRY_BYTES_MAX)) await writer.flush(CHUNK_KIND_MAP);
      writer.putRun(batch.lba[i] as number, batch.blocks[i] as number, batch.slot[i] as number);
    }
    mapEntries += batch.count;
  }
  await writer.flush(CHUNK_KIND_MAP);
  return writer.finish(mapEntries, segmentEntries);
}

class ChunkWriter {
  readonly #sink: MapFileSink;
  readonly #identity: MapFileIdentity;
  readonly #context: Uint8Array;
  readonly #bytes = new Uint8Array(PAYLOAD_OFFSET + PAYLOAD_BYTES + MAC_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  #at = PAYLOAD_OFFSET;
  #entries = 0;
  #chunks = 0;
  #offset = HEADER_BYTES;
  #chunkEnd = 0;
  #lastEnd = 0;
  #lastIndex = -1;

  constructor(sink: MapFileSink, identity: MapFileIdentity) {
    this.#sink = sink;
    this.#identity = identity;
    this.#context = macContext(identity);
  }

  fits(bytes: number): boolean {
    return this.#at + bytes <= PAYLOAD_OFFSET + PAYLOAD_BYTES && this.#entries < ENTRIES_PER_CHUNK_MAX;
  }

  putSegment(entry: SegmentEntry): void {
    if (entry.index <= this.#lastIndex) throw new RangeError(`segment index ${entry.index} is out of order`);
    this.#lastIndex = entry.index;
    encodeSegmentEntry(this.#bytes.subarray(this.#at, this.#at + SEGMENT_ENTRY_BYTES), entry);
    this.#at += SEGMENT_ENTRY_BYTES;
    this.#entries += 1;
  }

  putRun(lba: number, blocks: number, slot: number): void {
    if (!(lba >= this.#lastEnd) || !(blocks >= 1)) throw new RangeError(`run at ${lba} is out of order`);
    this.#at = putMapEntry(this.#bytes, this.#at, this.#chunkEnd, lba, blocks, slot);
    this.#chunkEnd = lba + blocks;
    this.#lastEnd = this.#chunkEnd;
    this.#entries += 1;
  }

  async flush(kind: number): Promise<void> {
    if (this.#entries === 0) return;
    const payloadBytes = this.#at - PAYLOAD_OFFSET;
    this.#view.setUint32(0, this.#chunks, true);
    encodeChunkFrame(this.#bytes.subarray(NUMBER_BYTES, PAYLOAD_OFFSET), payloadBytes, kind);
    const mac = addon.keyMac(this.#identity.key, MAP_LABEL, this.#context, this.#bytes.subarray(0, this.#at));
    this.#bytes.set(mac, this.#at);
    const chunk = this.#bytes.subarray(NUMBER_BYTES, this.#at + MAC_BYTES);
    await this.#sink.write(chunk, this.#offset);
    await setImmediate();
    this.#offset += chunk.length;
    this.#chunks += 1;
    this.#at = PAYLOAD_OFFSET;
    this.#entries = 0;
    this.#chunkEnd = 0;
  }

  async finish(mapEntries: number, segmentEntries: number): Promise<MapFileTotals> {
    const counts = { mapEntries, segmentEntries, chunks: this.#chunks };
    const fields = encodeHeader(this.#identity, counts);
    const header = new Uint8Array(HEADER_BYTES);
    header.set(fields);
    header.set(addon.keyMac(this.#identity.key, MAP_LABEL, this.#context, fields), fields.length);
    await this.#sink.write(header, 0);
    return { ...counts, bytes: this.#offset };
  }
}
