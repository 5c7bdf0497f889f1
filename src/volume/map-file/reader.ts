import { MAP_CHUNK_BYTES_MAX } from '../../base/limits.js';
import { addon } from '../../native/addon.js';
import { MAC_BYTES } from '../../segment/format.js';
import {
  CHUNK_FRAME_BYTES,
  CHUNK_KIND_MAP,
  CHUNK_KIND_SEGMENTS,
  decodeChunkFrame,
  decodeHeader,
  decodeSegmentEntry,
  HEADER_BYTES,
  integrityError,
  type MapFileCounts,
  macContext,
  mapFileName,
  SEGMENT_ENTRY_BYTES,
  type SegmentEntry,
} from './codec.js';
import { MapEntryDecoder } from './entry-codec.js';
import { RunBatch } from './run-batch.js';
import { MAP_LABEL, type MapFileIdentity } from './writer.js';

const BATCH_ENTRIES = 16_384;
const NUMBER_BYTES = 4;
const PAYLOAD_OFFSET = NUMBER_BYTES + CHUNK_FRAME_BYTES;

export interface MapFileSource {
  readonly sizeBytes: number;
  /** Reads into `bytes` and says how many; 0 at the end of the file. */
  read(bytes: Uint8Array, offset: number): Promise<number>;
}

export interface MapFileOptions {
  /** The file is the first run of its map, which has no tombstones. */
  readonly base: boolean;
}

/** Reads a whole map file, and throws INTEGRITY, naming the file, unless all of it is in order. */
export async function readMapFile(
  source: MapFileSource,
  identity: MapFileIdentity,
  options: MapFileOptions,
  onRuns: (batch: RunBatch) => void,
  onSegment: (entry: SegmentEntry) => void,
): Promise<MapFileCounts> {
  const reader = await MapFileReader.open(source, identity, options);
  for await (const entry of reader.segments()) onSegment(entry);
  for await (const batch of reader.runs()) onRuns(batch);
  return reader.counts;
}

/**
 * A map file being read front to back: `segments` to its end, then `runs` to its end. Each chunk is authenticated
 * before anything in it is looked at. Counts and the file's end are checked with the last run.
 */
export class MapFileReader {
  readonly counts: MapFileCounts;
  readonly #source: MapFileSource;
  readonly #identity: MapFileIdentity;
  readonly #base: boolean;
  readonly #context: Uint8Array;
  /** Chunk number, frame, payload, MAC, and the frame of the next chunk. */
  readonly #bytes = new Uint8Array(PAYLOAD_OFFSET + MAP_CHUNK_BYTES_MAX + MAC_BYTES + CHUNK_FRAME_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  #offset = HEADER_BYTES;
  #chunk = 0;
  #kind = 0;
  #payload: Uint8Array = this.#bytes.subarray(0, 0);
  #nextFrame: Uint8Array = new Uint8Array(0);
  #segmentsDone = false;

  private constructor(
    source: MapFileSource,
    identity: MapFileIdentity,
    options: MapFileOptions,
    counts: MapFileCounts,
  ) {
    this.#source = source;
    this.#identity = identity;
    this.#base = options.base;
    this.#context = macContext(identity);
    this.counts = counts;
  }

  static async open(
    source: MapFileSource,
    identity: MapFileIdentity,
    options: MapFileOptions,
  ): Promise<MapFileReader> {
    const header = new Uint8Array(HEADER_BYTES);
    if (source.sizeBytes < HEADER_BYTES) throw integrityError(identity.fileId, 'truncated');
    await readFully(source, identity.fileId, header, 0);
    const fields = header.subarray(0, HEADER_BYTES - MAC_BYTES);
    const mac = header.subarray(HEADER_BYTES - MAC_BYTES);
    if (!addon.keyMacVerify(identity.key, MAP_LABEL, macContext(identity), fields, mac)) {
      throw integrityError(identity.fileId, 'the header does not authenticate');
    }
    return new MapFileReader(source, identity, options, decodeHeader(fields, identity));
  }

  async *segments(): AsyncGenerator<SegmentEntry, void> {
    const what = mapFileName(this.#identity.fileId);
    let entries = 0;
    let last = -1;
    let more = await this.#next();
    while (more && this.#kind === CHUNK_KIND_SEGMENTS) {
      const payload = this.#payload;
      for (let at = 0; at < payload.length; at += SEGMENT_ENTRY_BYTES) {
        const entry = decodeSegmentEntry(payload.subarray(at, at + SEGMENT_ENTRY_BYTES), what);
        if (entry.index <= last) throw this.#error('segments out of order');
        if (entry.segment === undefined && this.#base) throw this.#error('a tombstone in the first run');
        last = entry.index;
        entries += 1;
        yield entry;
      }
      more = await this.#next();
    }
    if (entries !== this.counts.segmentEntries) {
      throw this.#error(`${entries} segment entries instead of ${this.counts.segmentEntries}`);
    }
    this.#segmentsDone = true;
  }

  async *runs(): AsyncGenerator<RunBatch, void> {
    if (!this.#segmentsDone) throw new Error('the segments of a map file come before its runs');
    const fail = (problem: string): Error => this.#error(`chunk ${this.#chunk - 1}: ${problem}`);
    const batch = new RunBatch(BATCH_ENTRIES);
    let entries = 0;
    let end = 0;
    let more = this.#payload.length !== 0;
    while (more) {
      if (this.#kind !== CHUNK_KIND_MAP) throw fail('segments after map entries');
      const decoder = new MapEntryDecoder(this.#payload, end, !this.#base, fail);
      while (decoder.fill(batch)) {
        entries += batch.count;
        yield batch;
      }
      end = decoder.end;
      more = await this.#next();
    }
    if (entries !== this.counts.mapEntries) {
      throw this.#error(`${entries} map entries instead of ${this.counts.mapEntries}`);
    }
    if (this.#offset !== this.#source.sizeBytes) throw this.#error('bytes after the last chunk');
  }

  /** Reads and authenticates the next chunk; false after the last. */
  async #next(): Promise<boolean> {
    const number = this.#chunk;
    this.#payload = this.#bytes.subarray(0, 0);
    if (number === this.counts.chunks) return false;
    const frame = this.#bytes.subarray(NUMBER_BYTES, PAYLOAD_OFFSET);
    if (number === 0) {
      this.#checkFits(CHUNK_FRAME_BYTES);
      await readFully(this.#source, this.#identity.fileId, frame, this.#offset);
    } else {
      // It came along with the chunk before.
      frame.set(this.#nextFrame);
    }
    const what = `${mapFileName(this.#identity.fileId)}: chunk ${number}`;
    const { payloadBytes, kind } = decodeChunkFrame(frame, what);
    const isLast = number + 1 === this.counts.chunks;
    const length = payloadBytes + MAC_BYTES + (isLast ? 0 : CHUNK_FRAME_BYTES);
    this.#checkFits(CHUNK_FRAME_BYTES + length);
    const rest = this.#bytes.subarray(PAYLOAD_OFFSET, PAYLOAD_OFFSET + length);
    await readFully(this.#source, this.#identity.fileId, rest, this.#offset + CHUNK_FRAME_BYTES);

    this.#view.setUint32(0, number, true);
    const macOffset = PAYLOAD_OFFSET + payloadBytes;
    const covered = this.#bytes.subarray(0, macOffset);
    const mac = this.#bytes.subarray(macOffset, macOffset + MAC_BYTES);
    if (!addon.keyMacVerify(this.#identity.key, MAP_LABEL, this.#context, covered, mac)) {
      throw this.#error(`chunk ${number} does not authenticate`);
    }
    this.#nextFrame = this.#bytes.slice(macOffset + MAC_BYTES, macOffset + MAC_BYTES + CHUNK_FRAME_BYTES);
    this.#payload = this.#bytes.subarray(PAYLOAD_OFFSET, macOffset);
    this.#kind = kind;
    this.#chunk = number + 1;
    this.#offset += CHUNK_FRAME_BYTES + payloadBytes + MAC_BYTES;
    return true;
  }

  #checkFits(length: number): void {
    if (length > this.#source.sizeBytes - this.#offset) throw this.#error('truncated');
  }

  #error(problem: string): Error {
    return integrityError(this.#identity.fileId, problem);
  }
}

async function readFully(
  source: MapFileSource,
  fileId: number,
  bytes: Uint8Array,
  offset: number,
): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const count = await source.read(bytes.subarray(at), offset + at);
    if (count === 0) throw integrityError(fileId, 'truncated');
    at += count;
  }
}
