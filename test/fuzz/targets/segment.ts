/** Header, index, slot trailer and unmaps of a segment: nothing, or what encodes to the same bytes again. */
import { BLOCK_BYTES, SEGMENT_HEADER_BYTES, SLOT_BYTES } from '../../../src/base/limits.js';
import {
  decodeHeader,
  decodeIndex,
  encodeHeader,
  encodeIndex,
  indexBytes,
  readSlotLba,
  readSlotMeta,
  readUnmaps,
  UNMAP_ENTRY_BYTES,
  writeUnmaps,
} from '../../../src/segment/format.js';
import { copyOf, decoded, MAC_BYTES, requireSame, requireThat } from './oracle.js';

const PARTS = [header, index, slot, unmaps] as const;

export function fuzz(data: Uint8Array): void {
  if (data.length === 0) return;
  PARTS[data[0] % PARTS.length](data.subarray(1));
}

/** The beginning of a header, then zeros; at times all of one. */
function header(data: Uint8Array): void {
  decoded(() => decodeHeader(data));
  const bytes = copyOf(data.subarray(0, SEGMENT_HEADER_BYTES), SEGMENT_HEADER_BYTES);
  const found = decoded(() => decodeHeader(bytes));
  if (found === undefined) return;
  requireThat(found.mac.length === MAC_BYTES, 'a MAC has 16 bytes');
  requireSame(encodeHeader(found.header).covered, found.covered, 'segment header');
}

function index(data: Uint8Array): void {
  const slots = Math.floor((data.length - indexBytes(0)) / 8);
  if (slots < 0 || data.length !== indexBytes(slots)) return;
  const found = decoded(() => decodeIndex(data, slots));
  if (found === undefined) return;
  const entries = Array.from({ length: slots }, (_, position) => found.entry(position));
  const back = encodeIndex(slots, (position) => entries[position]);
  // Two bytes of each entry are reserved, and not looked at: the MAC covers them.
  const covered = copyOf(found.covered);
  for (let position = 0; position < slots; position++)
    covered.fill(0, 16 + 8 * position + 6, 24 + 8 * position);
  requireSame(back.covered, covered, 'segment index');
}

function slot(data: Uint8Array): void {
  const bytes = new Uint8Array(SLOT_BYTES + 3);
  bytes.set(data.subarray(0, SLOT_BYTES - BLOCK_BYTES), BLOCK_BYTES + 3);
  const meta = decoded(() => readSlotMeta(bytes, 3));
  if (meta === undefined) return;
  requireThat(readSlotLba(bytes, 3) === meta.lba, 'a block number is read in one way');
  requireThat(
    Number.isSafeInteger(meta.durable) && meta.durable <= meta.sequence,
    'claims are about the past',
  );
}

function unmaps(data: Uint8Array): void {
  const block = copyOf(data.subarray(0, BLOCK_BYTES), BLOCK_BYTES);
  const found = decoded(() => readUnmaps(block));
  if (found === undefined) return;
  const back = new Uint8Array(BLOCK_BYTES);
  writeUnmaps(back, found);
  const end = found.length * UNMAP_ENTRY_BYTES;
  requireSame(back.subarray(0, end), block.subarray(0, end), 'unmaps');
}
