import { createHash } from 'node:crypto';
import { afterAll, describe, expect, test } from 'vitest';
import { isSealbdError } from '../../src/base/errors.js';
import { BLOCKS_MAX, SLOT_ADDRESS_END } from '../../src/base/limits.js';
import { addon } from '../../src/native/addon.js';
import { UNMAPPED } from '../../src/volume/block-map.js';
import { HEADER_BYTES, macContext, type SegmentEntry } from '../../src/volume/map-file/codec.js';
import { readMapFile } from '../../src/volume/map-file/reader.js';
import { RunBatch } from '../../src/volume/map-file/run-batch.js';
import { MAP_LABEL, type MapFileIdentity, writeMapFile } from '../../src/volume/map-file/writer.js';

type Run = [lba: number, blocks: number, slot: number];

const key = addon.keyImport(Buffer.alloc(32, 7));
const identity: MapFileIdentity = {
  key,
  dekId: 3,
  uuid: Buffer.alloc(16, 0x11),
  fileId: 0x2_0000_0005,
  salt: Buffer.alloc(32, 0x22),
};
const FILE = 'map-0000000200000005';
const FRAME_OFFSET = HEADER_BYTES;
const PAYLOAD_OFFSET = HEADER_BYTES + 8;

afterAll(() => addon.keyRelease(key));

const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
const segment = { kind: 2, suite: 2, dekId: 9, slots: 16384, segmentId: 2 ** 40 } as const;
const SEGMENTS: SegmentEntry[] = [
  { index: 1, segment: { ...segment, originUuid: filled(16, 1), salt: filled(32, 2) } },
  { index: 300, segment: undefined },
];
const RUNS: Run[] = [
  [0, 1, 0],
  [5, 300, 2 ** 31],
  [305, 2 ** 33, UNMAPPED],
  [BLOCKS_MAX - 1, 1, SLOT_ADDRESS_END - 1],
];

function batch(runs: readonly Run[]): RunBatch[] {
  const result = new RunBatch(runs.length + 1);
  for (const run of runs) result.push(...run);
  return [result];
}

async function write(runs: readonly Run[], segments: readonly SegmentEntry[]): Promise<Buffer> {
  let file = Buffer.alloc(0);
  const sink = {
    async write(bytes: Uint8Array, offset: number): Promise<void> {
      if (offset + bytes.length > file.length) {
        file = Buffer.concat([file, Buffer.alloc(offset + bytes.length - file.length)]);
      }
      file.set(bytes, offset);
    },
  };
  const totals = await writeMapFile(sink, identity, batch(runs), segments);
  expect(totals.bytes).toBe(file.length);
  return file;
}

/** Answers in pieces, as a file may. */
function sourceOf(file: Uint8Array, sizeBytes = file.length) {
  return {
    sizeBytes,
    async read(bytes: Uint8Array, offset: number): Promise<number> {
      const part = file.subarray(offset, offset + Math.min(bytes.length, 1000));
      bytes.set(part);
      return part.length;
    },
  };
}

async function read(file: Uint8Array, options = { base: false }, of = identity, sizeBytes = file.length) {
  const runs: Run[] = [];
  const segments: SegmentEntry[] = [];
  const counts = await readMapFile(
    sourceOf(file, sizeBytes),
    of,
    options,
    ({ lba, blocks, slot, count }) => {
      for (let i = 0; i < count; i++) runs.push([lba[i] as number, blocks[i] as number, slot[i] as number]);
    },
    (entry) => segments.push(entry),
  );
  return { runs, segments, counts };
}

async function problem(
  file: Uint8Array,
  ...rest: [{ base: boolean }?, MapFileIdentity?, number?]
): Promise<string> {
  try {
    await read(file, ...rest);
  } catch (error) {
    if (!isSealbdError(error, 'INTEGRITY')) throw error;
    expect(error.message).toContain(FILE);
    return error.message;
  }
  throw new Error('the file was accepted');
}

/** A file of one chunk with the payload given, whose MACs are right. */
function forge(
  payload: Uint8Array,
  kind: number,
  counts: { map?: number; segments?: number; chunks?: number },
): Buffer {
  const header = Buffer.alloc(HEADER_BYTES - 16);
  header.write('SBDMAP1\n');
  header.writeUInt16LE(1, 8);
  header.writeUInt32LE(identity.dekId, 12);
  header.set(identity.uuid, 16);
  header.writeBigUInt64LE(BigInt(identity.fileId), 32);
  header.set(identity.salt, 40);
  header.writeBigUInt64LE(BigInt(counts.map ?? 0), 72);
  header.writeBigUInt64LE(BigInt(counts.segments ?? 0), 80);
  header.writeUInt32LE(counts.chunks ?? 1, 88);
  const chunk = Buffer.alloc(12 + payload.length);
  chunk.writeUInt32LE(payload.length, 4);
  chunk.writeUInt8(kind, 8);
  chunk.set(payload, 12);
  return Buffer.concat([header, mac(header), chunk.subarray(4), mac(chunk)]);
}

function mac(covered: Uint8Array): Buffer {
  return addon.keyMac(key, MAP_LABEL, macContext(identity), covered);
}

describe('a map file', () => {
  test('has the bytes of docs/FORMAT.md', async () => {
    const file = await write([[5, 300, 2 ** 31]], SEGMENTS);
    const segments = Buffer.alloc(144);
    segments.writeUInt32LE(1, 0);
    segments.set([1, 2, 2, 0], 4);
    segments.writeUInt32LE(9, 8);
    segments.writeUInt32LE(16384, 12);
    segments.writeBigUInt64LE(2n ** 40n, 16);
    segments.fill(1, 24, 40);
    segments.fill(2, 40, 72);
    segments.writeUInt32LE(300, 72);
    const first = forge(segments, 2, { map: 1, segments: 2, chunks: 2 });
    // gap 5; run 300 = 0b10_0101100; where 2^31 + 1.
    const payload = Buffer.from([5, 0b1010_1100, 0b10, 0x81, 0x80, 0x80, 0x80, 0x08]);
    const second = Buffer.alloc(12 + payload.length);
    second.writeUInt32LE(1, 0);
    second.writeUInt32LE(payload.length, 4);
    second.writeUInt8(1, 8);
    second.set(payload, 12);
    expect(file.toString('hex')).toBe(
      Buffer.concat([first, second.subarray(4), mac(second)]).toString('hex'),
    );
  });

  test('gives back what was written', async () => {
    const { runs, segments, counts } = await read(await write(RUNS, SEGMENTS));
    expect(runs).toEqual(RUNS);
    expect(segments).toEqual(SEGMENTS);
    expect(counts).toEqual({ mapEntries: 4, segmentEntries: 2, chunks: 2 });
  });

  test('may be empty', async () => {
    const file = await write([], []);
    expect(file.length).toBe(HEADER_BYTES);
    expect(await read(file)).toEqual({
      runs: [],
      segments: [],
      counts: { mapEntries: 0, segmentEntries: 0, chunks: 0 },
    });
  });

  test('of many chunks gives back what was written', async () => {
    const runs: Run[] = [];
    for (let i = 0; i < 40_000; i++) runs.push([i * 400_000, 1 + (i % 3), (i * 7919 * 65537) % 2 ** 38]);
    const segments: SegmentEntry[] = [];
    for (let i = 0; i < 5000; i++) segments.push({ ...(SEGMENTS[i % 2] as SegmentEntry), index: i * 3 });
    const file = await write(runs, segments);
    const result = await read(file);
    expect(result.counts.chunks).toBeGreaterThan(4);
    // Compared as text: a difference in so much data would take minutes to print.
    expect(JSON.stringify(result.runs) === JSON.stringify(runs)).toBe(true);
    expect(JSON.stringify(result.segments) === JSON.stringify(segments)).toBe(true);
  });

  test('is refused where runs or segments to write are out of order', async () => {
    const run: Run = [7, 2, 1];
    await expect(write([run, [8, 1, 5]], [])).rejects.toThrow(RangeError);
    await expect(write([], [SEGMENTS[1], SEGMENTS[0]] as SegmentEntry[])).rejects.toThrow(RangeError);
  });
});

describe('a damaged map file is an INTEGRITY error that names it', () => {
  test('any byte changed', async () => {
    const file = await write(RUNS, SEGMENTS);
    for (let i = 0; i < file.length; i++) {
      const damaged = Buffer.from(file);
      damaged[i] = (damaged[i] as number) ^ (1 << (i % 8));
      await problem(damaged);
    }
  });

  test('cut short anywhere, or with bytes added', async () => {
    const file = await write(RUNS, SEGMENTS);
    for (let length = 0; length < file.length; length++) await problem(file.subarray(0, length));
    expect(await problem(Buffer.concat([file, Buffer.alloc(1)]))).toContain('bytes after the last chunk');
    expect(await problem(file.subarray(0, -1), { base: false }, identity, file.length)).toContain(
      'truncated',
    );
  });

  test('another volume, file, salt, key id or key', async () => {
    const file = await write(RUNS, SEGMENTS);
    const other = addon.keyImport(Buffer.alloc(32, 8));
    const changes = [
      { uuid: Buffer.alloc(16, 9) },
      { salt: Buffer.alloc(32, 9) },
      { key: other },
      { dekId: 4 },
    ];
    for (const change of changes) await problem(file, { base: false }, { ...identity, ...change });
    await expect(read(file, { base: false }, { ...identity, fileId: 6 })).rejects.toThrow(
      'map-0000000000000006',
    );
    addon.keyRelease(other);
  });

  test('chunks swapped', async () => {
    const runs: Run[] = [];
    for (let i = 0; i < 16_384 * 2; i++) runs.push([i * 2, 1, i]);
    const file = await write(runs, []);
    const length = file.readUInt32LE(FRAME_OFFSET) + 24;
    const first = file.subarray(FRAME_OFFSET, FRAME_OFFSET + length);
    const second = file.subarray(FRAME_OFFSET + length);
    const swapped = Buffer.concat([file.subarray(0, FRAME_OFFSET), second, first]);
    expect(await problem(swapped)).toContain('chunk 0 does not authenticate');
  });

  test('reserved bytes, version, kind or lengths wrong under a good MAC', async () => {
    const good = forge(Buffer.from([1, 1, 1]), 1, { map: 1 });
    expect((await read(good)).runs).toEqual([[1, 1, 0]]);
    const resealed = (offset: number, value: number): Buffer => {
      const file = Buffer.from(good);
      file[offset] = value;
      file.set(mac(file.subarray(0, HEADER_BYTES - 16)), HEADER_BYTES - 16);
      return file;
    };
    expect(await problem(resealed(8, 2))).toContain('version 2');
    expect(await problem(resealed(10, 1))).toContain('reserved');
    expect(await problem(resealed(100, 1))).toContain('reserved');
    expect(await problem(resealed(0, 0))).toContain('magic');
    expect(await problem(resealed(79, 1))).toContain('2^53');
    expect(await problem(forge(Buffer.from([1, 1, 1]), 3, { map: 1 }))).toContain('kind 3');
    expect(await problem(forge(Buffer.from([1, 1, 1]), 2, { segments: 1 }))).toContain('3 bytes');
    expect(await problem(forge(Buffer.alloc(0), 1, {}))).toContain('payload of 0 bytes');
    const huge = Buffer.from(good);
    huge.writeUInt32LE(256 * 1024 + 1, FRAME_OFFSET);
    expect(await problem(huge)).toContain('payload of 262145 bytes');
    huge.writeUInt32LE(256 * 1024, FRAME_OFFSET);
    expect(await problem(huge)).toContain('truncated');
    huge.writeUInt32LE(3, FRAME_OFFSET);
    huge.writeUInt8(9, PAYLOAD_OFFSET);
    expect(await problem(huge)).toContain('does not authenticate');
  });

  const entries: [string, number[], string][] = [
    ['empty runs', [1, 0, 1], 'empty entry'],
    ['a number cut short', [1, 1, 0x80], 'cut short'],
    ['an entry cut short', [1, 1, 1, 4], 'cut short'],
    ['a number with needless zeros', [0x81, 0, 1, 1], 'needless zeros'],
    ['a long number with needless zeros', [0x81, 0x80, 0x80, 0x80, 0, 1, 1], 'needless zeros'],
    ['a number that does not end', [...Buffer.alloc(9, 0xff), 1, 1, 1], 'above 2^49'],
    ['a block beyond the largest volume', [0x80, 0x80, 0x80, 0x80, 0x40, 1, 1], 'largest volume'],
    ['a slot out of range', [1, 1, ...Buffer.alloc(5, 0xff), 0x7f], 'slot out of range'],
  ];
  test.each(entries)('%s under a good MAC', async (_, payload, expected) => {
    expect(await problem(forge(Buffer.from(payload), 1, { map: 1 }))).toContain(expected);
  });

  test('entries of a chunk that begin before the end of the chunk before', async () => {
    const runs: Run[] = [];
    for (let i = 0; i < 16_385; i++) runs.push([i * 2, 1, i]);
    const file = await write(runs, []);
    const length = file.readUInt32LE(FRAME_OFFSET) + 24;
    const last = forge(Buffer.from([9, 1, 1]), 1, {}).subarray(HEADER_BYTES);
    const chunk = Buffer.concat([Buffer.from([1, 0, 0, 0]), last.subarray(0, -16)]);
    const forged = Buffer.concat([file.subarray(0, FRAME_OFFSET + length), chunk.subarray(4), mac(chunk)]);
    expect(await problem(forged)).toContain('out of order');
  });

  test('counts that do not match', async () => {
    expect(await problem(forge(Buffer.from([1, 1, 1]), 1, { map: 2 }))).toContain(
      '1 map entries instead of 2',
    );
    expect(await problem(forge(Buffer.from([1, 1, 1]), 1, { map: 1, segments: 1 }))).toContain(
      '0 segment entries',
    );
    expect(await problem(forge(Buffer.from([1, 1, 1]), 1, { map: 1, chunks: 2 }))).toContain('truncated');
  });

  test('tombstones in the first run of a map', async () => {
    expect(await problem(await write([[1, 1, UNMAPPED]], []), { base: true })).toContain('tombstone');
    expect(await problem(await write([], [{ index: 4, segment: undefined }]), { base: true })).toContain(
      'tombstone',
    );
    expect((await read(await write([[1, 1, 0]], SEGMENTS.slice(0, 1)), { base: true })).runs).toEqual([
      [1, 1, 0],
    ]);
  });

  test('segment entries wrong under a good MAC', async () => {
    const good = Buffer.alloc(72);
    good.set([1, 0, 0, 0, 1, 1, 2, 0]);
    const at = (offset: number, ...bytes: number[]): Buffer => {
      const entry = Buffer.from(good);
      entry.set(bytes, offset);
      return forge(entry, 2, { segments: 1 });
    };
    expect((await read(at(0, 1))).segments).toHaveLength(1);
    expect(await problem(at(3, 1))).toContain('segment index');
    expect(await problem(at(4, 2))).toContain('flags');
    expect(await problem(at(4, 0))).toContain('reserved');
    expect(await problem(at(5, 3))).toContain('segment kind');
    expect(await problem(at(6, 3))).toContain('suite');
    expect(await problem(at(7, 1))).toContain('reserved');
    expect(await problem(at(12, 1, 0x40))).toContain('slots');
    expect(await problem(forge(Buffer.concat([good, good]), 2, { segments: 2 }))).toContain('out of order');
  });
});

test('two files with the same content and another salt have other MACs', async () => {
  const file = await write(RUNS, SEGMENTS);
  const digest = createHash('sha256').update(file).digest('hex');
  identity.salt[0] = (identity.salt[0] as number) ^ 1;
  const other = await write(RUNS, SEGMENTS);
  identity.salt[0] = (identity.salt[0] as number) ^ 1;
  expect(createHash('sha256').update(other).digest('hex')).not.toBe(digest);
  expect(other.subarray(-16).equals(file.subarray(-16))).toBe(false);
});
