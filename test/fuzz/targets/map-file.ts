/** A map file under the right key is refused, or is in order and reads the same once it is written again. */

import { isSealbdError } from '../../../src/base/errors.js';
import { BLOCKS_MAX, SLOT_ADDRESS_END } from '../../../src/base/limits.js';
import { addon } from '../../../src/native/addon.js';
import { HEADER_BYTES, macContext, type SegmentEntry } from '../../../src/volume/map-file/codec.js';
import { readMapFile } from '../../../src/volume/map-file/reader.js';
import { RunBatch } from '../../../src/volume/map-file/run-batch.js';
import { MAP_LABEL, type MapFileIdentity, writeMapFile } from '../../../src/volume/map-file/writer.js';
import { copyOf, getUint32, KEY, MAC_BYTES, requireThat, setUint32, UUID } from './oracle.js';

const SALT = new Uint8Array(32).fill(9);
const IDENTITY: MapFileIdentity = { dekId: 1, uuid: UUID, fileId: 5, salt: SALT, key: KEY };
const CONTEXT = macContext(IDENTITY);
const [DEK_AT, UUID_AT, FILE_AT, SALT_AT, CHUNKS_AT] = [12, 16, 32, 40, 88];
const REWRITTEN_MAX = 100;

interface Contents {
  readonly runs: [number, number, number][];
  readonly segments: SegmentEntry[];
}

export async function fuzz(data: Uint8Array): Promise<void> {
  if (data.length < HEADER_BYTES) return;
  const bytes = copyOf(data);
  const base = (data[data.length - 1] & 1) === 1;
  identify(bytes);
  signChunks(bytes);
  sign(bytes.subarray(0, HEADER_BYTES - MAC_BYTES), bytes, HEADER_BYTES - MAC_BYTES);
  const found = await read(bytes, base);
  if (found === undefined) return;
  check(found, base);
  if (found.runs.length > REWRITTEN_MAX) return;
  const again = await read(await rewrite(found), base);
  requireThat(JSON.stringify(again) === JSON.stringify(found), 'it reads the same once it is written again');
}

/** As the root names it. */
function identify(bytes: Uint8Array): void {
  setUint32(bytes, DEK_AT, IDENTITY.dekId);
  bytes.set(UUID, UUID_AT);
  setUint32(bytes, FILE_AT, IDENTITY.fileId);
  setUint32(bytes, FILE_AT + 4, 0);
  bytes.set(SALT, SALT_AT);
}

function sign(covered: Uint8Array, into: Uint8Array, at: number): void {
  into.set(addon.keyMac(KEY, MAP_LABEL, CONTEXT, covered), at);
}

function signChunks(bytes: Uint8Array): void {
  const chunks = getUint32(bytes, CHUNKS_AT);
  let at = HEADER_BYTES;
  for (let number = 0; number < chunks && at + 8 <= bytes.length; number++) {
    const end = at + 8 + getUint32(bytes, at);
    if (end + MAC_BYTES > bytes.length) return;
    const covered = new Uint8Array(4 + end - at);
    setUint32(covered, 0, number);
    covered.set(bytes.subarray(at, end), 4);
    sign(covered, bytes, end);
    at = end + MAC_BYTES;
  }
}

async function read(bytes: Uint8Array, base: boolean): Promise<Contents | undefined> {
  const found: Contents = { runs: [], segments: [] };
  // At most 50 bytes at a time: a file may give less than it is asked for.
  const source = {
    sizeBytes: bytes.length,
    read: async (into: Uint8Array, offset: number) => {
      const part = bytes.subarray(offset, offset + Math.min(into.length, 4096));
      into.set(part);
      return part.length;
    },
  };
  const onRuns = ({ count, lba, blocks, slot }: RunBatch) => {
    for (let i = 0; i < count; i++) found.runs.push([lba[i], blocks[i], slot[i]]);
  };
  try {
    await readMapFile(source, IDENTITY, { base }, onRuns, (entry) => found.segments.push(entry));
    return found;
  } catch (error) {
    if (isSealbdError(error, 'INTEGRITY')) return undefined;
    throw error;
  }
}

function check({ runs, segments }: Contents, base: boolean): void {
  let end = 0;
  for (const [lba, blocks, slot] of runs) {
    requireThat(
      lba >= end && blocks >= 1 && lba + blocks <= BLOCKS_MAX,
      'runs are in order and inside a volume',
    );
    requireThat(slot === -1 ? !base : slot >= 0 && slot + blocks <= SLOT_ADDRESS_END, 'slots are in range');
    end = lba + blocks;
  }
  let last = -1;
  for (const { index } of segments) {
    requireThat(index > last, 'segments are in order');
    last = index;
  }
}

async function rewrite({ runs, segments }: Contents): Promise<Uint8Array> {
  const written = new Uint8Array(65_536);
  let size = 0;
  const sink = {
    write: async (bytes: Uint8Array, offset: number) => {
      written.set(bytes, offset);
      size = Math.max(size, offset + bytes.length);
    },
  };
  const batch = new RunBatch(Math.max(1, runs.length));
  for (const [lba, blocks, slot] of runs) batch.push(lba, blocks, slot);
  await writeMapFile(sink, IDENTITY, runs.length === 0 ? [] : [batch], segments);
  return written.subarray(0, size);
}
