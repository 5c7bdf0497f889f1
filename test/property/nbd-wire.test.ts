/** The codec is pure, so decode -> encode -> decode must be the identity on all that decodes. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeString, encodeString, viewOf } from '../../src/nbd/wire/bytes.js';
import { CHUNK_HEADER_BYTES, Chunk, REQUEST_HEADER_BYTES } from '../../src/nbd/wire/constants.js';
import {
  decodeInfoRequest,
  decodeMetaRequest,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  encodeInfoRequest,
  encodeMetaRequest,
  encodeOption,
  encodeOptionReply,
} from '../../src/nbd/wire/option.js';
import {
  blockStatusBytes,
  decodeBlockStatus,
  decodeChunkHeader,
  decodeErrorChunk,
  decodeHole,
  decodeSimpleReply,
  encodeBlockStatus,
  encodeChunkHeader,
  encodeDataHeader,
  encodeErrorChunk,
  encodeHole,
  encodeSimpleReply,
  errorChunkBytes,
} from '../../src/nbd/wire/reply.js';
import { decodeRequest, emptyRequest, encodeRequest } from '../../src/nbd/wire/request.js';
import { testSeed } from '../support/seeded-random.js';

const seed = testSeed('nbd-wire');
const run = { seed, numRuns: 500 };
const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u53 = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const cookie = fc.record({ cookieHigh: u32, cookieLow: u32 });
const text = fc.string({ unit: 'binary', maxLength: 300 }).filter((value) => !value.includes('\0'));

describe('requests', () => {
  it('decode to what was encoded', () => {
    const request = fc.record({
      flags: u16,
      type: u16,
      cookieHigh: u32,
      cookieLow: u32,
      offset: u53,
      length: u32,
    });
    fc.assert(
      fc.property(request, fc.integer({ min: 0, max: 64 }), (value, at) => {
        const bytes = Buffer.alloc(REQUEST_HEADER_BYTES + at);
        encodeRequest(viewOf(bytes), at, value);
        const back = emptyRequest();
        expect(decodeRequest(viewOf(bytes), at, back)).toBe(true);
        expect(back).toEqual(value);
      }),
      run,
    );
  });

  it('have the published layout', () => {
    const bytes = Buffer.alloc(REQUEST_HEADER_BYTES);
    const fields = {
      flags: 1,
      type: 6,
      cookieHigh: 0x01020304,
      cookieLow: 0x05060708,
      offset: 2 ** 40,
      length: 512,
    };
    encodeRequest(viewOf(bytes), 0, fields);
    expect(bytes.toString('hex')).toBe(
      '25609513' + '0001' + '0006' + '0102030405060708' + '0000010000000000' + '00000200',
    );
  });

  it('with another magic do not decode', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 28, maxLength: 28 }), (bytes) => {
        const right = bytes[0] === 0x25 && bytes[1] === 0x60 && bytes[2] === 0x95 && bytes[3] === 0x13;
        expect(decodeRequest(viewOf(bytes), 0, emptyRequest())).toBe(right);
      }),
      run,
    );
  });

  it('with any 64-bit offset decode to a number that is not below the true one by more than rounding', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (offset) => {
        const bytes = Buffer.alloc(REQUEST_HEADER_BYTES);
        encodeRequest(viewOf(bytes), 0, emptyRequest());
        bytes.writeBigUInt64BE(offset, 16);
        const back = emptyRequest();
        decodeRequest(viewOf(bytes), 0, back);
        expect(back.offset).toBe(Number(offset));
      }),
      run,
    );
  });
});

describe('replies', () => {
  it('simple ones decode to what was encoded', () => {
    fc.assert(
      fc.property(cookie, u32, (who, error) => {
        const bytes = Buffer.alloc(16);
        encodeSimpleReply(viewOf(bytes), 0, who, error);
        expect(decodeSimpleReply(viewOf(bytes), 0)).toEqual({ ...who, error });
        expect(decodeChunkHeader(viewOf(Buffer.alloc(20)), 0)).toBeUndefined();
      }),
      run,
    );
  });

  it('chunk headers, data headers and holes decode to what was encoded', () => {
    fc.assert(
      fc.property(cookie, u16, u16, u32, u53, fc.boolean(), (who, type, flags, length, offset, done) => {
        const view = viewOf(Buffer.alloc(64));
        encodeChunkHeader(view, 0, who, type, flags, length);
        expect(decodeChunkHeader(view, 0)).toEqual({ ...who, type, flags, length });
        encodeHole(view, 0, who, done, offset, length);
        const hole = { ...who, type: Chunk.OFFSET_HOLE, flags: done ? 1 : 0, length: 12 };
        expect(decodeChunkHeader(view, 0)).toEqual(hole);
        expect(decodeHole(view, CHUNK_HEADER_BYTES)).toEqual({ offset, length });
        const dataBytes = Math.min(length, 0xffff_fff0);
        encodeDataHeader(view, 0, who, done, offset, dataBytes);
        expect(decodeChunkHeader(view, 0)?.length).toBe(dataBytes + 8);
        expect(view.getBigUint64(CHUNK_HEADER_BYTES)).toBe(BigInt(offset));
      }),
      run,
    );
  });

  it('block status decodes to what was encoded', () => {
    const extents = fc.array(fc.record({ length: u32, state: u32 }), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(cookie, u32, extents, (who, contextId, list) => {
        const bytes = Buffer.alloc(blockStatusBytes(list.length));
        encodeBlockStatus(viewOf(bytes), 0, who, contextId, list);
        const header = decodeChunkHeader(viewOf(bytes), 0);
        expect(header?.length).toBe(bytes.length - CHUNK_HEADER_BYTES);
        const back = decodeBlockStatus(viewOf(bytes), CHUNK_HEADER_BYTES, bytes.length - CHUNK_HEADER_BYTES);
        expect(back).toEqual({ contextId, extents: list });
      }),
      run,
    );
  });

  it('errors decode to what was encoded', () => {
    fc.assert(
      fc.property(cookie, u32, text, fc.option(u53, { nil: undefined }), (who, error, message, offset) => {
        const encoded = encodeString(message, 512);
        const bytes = Buffer.alloc(errorChunkBytes(encoded.length, offset !== undefined));
        encodeErrorChunk(viewOf(bytes), 0, who, error, encoded, offset);
        const type = offset === undefined ? Chunk.ERROR : Chunk.ERROR_OFFSET;
        expect(decodeChunkHeader(viewOf(bytes), 0)?.type).toBe(type);
        const back = decodeErrorChunk(bytes.subarray(CHUNK_HEADER_BYTES), type);
        expect(back).toEqual({ error, message: decodeString(encoded), offset });
      }),
      run,
    );
  });
});

describe('options', () => {
  it('and their replies decode to what was encoded', () => {
    fc.assert(
      fc.property(u32, u32, fc.uint8Array({ maxLength: 200 }), (option, reply, data) => {
        expect(decodeOptionHeader(encodeOption(option, data))).toEqual({ option, length: data.length });
        const bytes = encodeOptionReply(option, reply, data);
        expect(decodeOptionReplyHeader(bytes)).toEqual({ option, reply, length: data.length });
        expect(bytes.subarray(20)).toEqual(data);
      }),
      run,
    );
  });

  it('INFO and GO data decode to what was encoded', () => {
    fc.assert(
      fc.property(text, fc.array(u16, { maxLength: 40 }), (name, infos) => {
        expect(decodeInfoRequest(encodeInfoRequest({ name, infos }))).toEqual({ name, infos });
      }),
      run,
    );
  });

  it('meta context data decodes to what was encoded', () => {
    fc.assert(
      fc.property(text, fc.array(text, { maxLength: 10 }), (name, queries) => {
        expect(decodeMetaRequest(encodeMetaRequest({ name, queries }), 10)).toEqual({ name, queries });
        if (queries.length > 0) {
          expect(decodeMetaRequest(encodeMetaRequest({ name, queries }), queries.length - 1)).toBe('TOO_BIG');
        }
      }),
      run,
    );
  });

  it('whatever bytes decode encode to the same bytes again, and nothing throws', () => {
    const short = fc.string({ maxLength: 12 });
    const valid = fc.oneof(
      fc.record({ name: short, infos: fc.array(u16, { maxLength: 4 }) }).map(encodeInfoRequest),
      fc.record({ name: short, queries: fc.array(short, { maxLength: 4 }) }).map(encodeMetaRequest),
    );
    // Valid data with at most one byte changed, and at times an end that is missing.
    const change = fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }), fc.boolean(), fc.nat({ max: 3 }));
    const nearly = fc.tuple(valid, change).map(([bytes, [at, byte, changes, cut]]) => {
      if (changes) bytes[at % bytes.length] = byte;
      return bytes.subarray(0, bytes.length - cut);
    });
    let decoded = 0;
    fc.assert(
      fc.property(nearly, (bytes) => {
        const info = decodeInfoRequest(bytes);
        if (info !== undefined) expect(encodeInfoRequest(info)).toEqual(bytes);
        const meta = decodeMetaRequest(bytes, 64);
        if (meta !== undefined && meta !== 'TOO_BIG') expect(encodeMetaRequest(meta)).toEqual(bytes);
        if (info !== undefined || meta !== undefined) decoded += 1;
        decodeErrorChunk(bytes, Chunk.ERROR);
        decodeErrorChunk(bytes, Chunk.ERROR_OFFSET);
      }),
      { seed, numRuns: 5000 },
    );
    expect(decoded).toBeGreaterThan(500);
  });
});

describe('strings', () => {
  it('are cut at a character and never hold NUL', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary', maxLength: 100 }),
        fc.integer({ min: 0, max: 120 }),
        (value, bytesMax) => {
          const bytes = encodeString(value, bytesMax);
          expect(bytes.length).toBeLessThanOrEqual(bytesMax);
          const back = decodeString(bytes);
          expect(back).toBeDefined();
          // Lone surrogates and NUL become U+FFFD.
          expect(
            toWellFormed(value)
              .replaceAll('\0', '\ufffd')
              .startsWith(back ?? '?'),
          ).toBe(true);
        },
      ),
      run,
    );
  });
});

function toWellFormed(value: string): string {
  return Buffer.from(value, 'utf8').toString('utf8');
}
