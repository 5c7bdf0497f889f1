/** The NBD wire codec: what one request costs beside everything else that happens to it. */
import {
  decodeChunkHeader,
  decodeSimpleReply,
  encodeBlockStatus,
  encodeDataHeader,
  encodeSimpleReply,
} from '../../src/nbd/wire/reply.js';
import { decodeRequest, emptyRequest, encodeRequest } from '../../src/nbd/wire/request.js';
import { runGroup } from '../group.js';
import type { GroupOptions, GroupResult } from '../result.js';
import { type Operation, timeOperations } from './timed.js';

const BUFFER_BYTES = 4096;
const OFFSET = 9 * 2 ** 40 + 4096;
const LENGTH = 65_536;
const EXTENTS = Array.from({ length: 16 }, (_, i) => ({ length: LENGTH, state: i % 2 }));
const TIME_MS = 500;
const TIME_QUICK_MS = 5;

function operations(): Operation[] {
  const view = new DataView(new ArrayBuffer(BUFFER_BYTES));
  const cookie = { cookieHigh: 1, cookieLow: 2 };
  const request = { flags: 0, type: 1, ...cookie, offset: OFFSET, length: LENGTH };
  const encoded = new DataView(new ArrayBuffer(BUFFER_BYTES));
  encodeRequest(encoded, 0, request);
  const into = emptyRequest();
  const simple = new DataView(new ArrayBuffer(BUFFER_BYTES));
  encodeSimpleReply(simple, 0, cookie, 0);
  const chunk = new DataView(new ArrayBuffer(BUFFER_BYTES));
  encodeDataHeader(chunk, 0, cookie, true, OFFSET, LENGTH);
  return [
    { name: 'encode a request', run: () => encodeRequest(view, 0, request) },
    {
      name: 'decode a request',
      run() {
        if (!decodeRequest(encoded, 0, into) || into.offset !== OFFSET) throw new Error('not the request');
      },
    },
    { name: 'encode a simple reply', run: () => encodeSimpleReply(view, 0, cookie, 0) },
    {
      name: 'decode a simple reply',
      run() {
        if (decodeSimpleReply(simple, 0)?.cookieLow !== cookie.cookieLow) throw new Error('not the reply');
      },
    },
    {
      name: 'encode a data chunk header',
      run: () => encodeDataHeader(view, 0, cookie, true, OFFSET, LENGTH),
    },
    {
      name: 'decode a chunk header',
      run() {
        if (decodeChunkHeader(chunk, 0)?.length !== LENGTH + 8) throw new Error('not the chunk');
      },
    },
    { name: 'encode 16 extents', run: () => encodeBlockStatus(view, 0, cookie, 1, EXTENTS) },
  ];
}

async function measure({ quick }: GroupOptions): Promise<GroupResult> {
  const all = operations();
  const nanoseconds = await timeOperations(all, quick ? TIME_QUICK_MS : TIME_MS);
  return {
    notes: [
      'Headers alone, in warm code and caches; the payload is moved by the addon. Decoding is checked.',
    ],
    tables: [
      {
        title: 'NBD wire codec',
        columns: [
          { key: 'operation', label: 'operation' },
          { key: 'nanoseconds', label: 'median ns', digits: 1 },
        ],
        rows: all.map(({ name }, i) => ({ operation: name, nanoseconds: nanoseconds[i] })),
      },
    ],
  };
}

await runGroup(measure);
