/**
 * Watches the files of a volume from outside: every copy of its directory that anybody could have taken. It proves
 * each slot with keys derived by the reference, so that torn writes and the remains in recycled files do not count.
 */
import { deriveKey } from './reference-crypto.js';
import {
  type ParsedSegment,
  parseSegment,
  readFiles,
  SegmentKeys,
  slotBytes,
  slotsIn,
} from './volume-parser.js';

interface SeenSegment {
  readonly parsed: ParsedSegment;
  readonly keys: SegmentKeys;
  readonly slots: Map<number, Buffer>;
}

const ZEROS = Buffer.alloc(64);

export class SlotObserver {
  readonly #dek: Buffer;
  readonly #segments = new Map<string, SeenSegment>();
  /** Salt and position that were seen with two authentic contents. */
  readonly conflicts: string[] = [];

  constructor(dek: Buffer) {
    this.#dek = dek;
  }

  /** Takes in every segment in `path`, whatever the file is called. */
  look(path: string): void {
    for (const [name, bytes] of readFiles(path)) {
      const parsed = parseSegment(bytes);
      if (parsed === undefined || parsed.suite === 0) continue;
      const key = parsed.context.toString('hex');
      let seen = this.#segments.get(key);
      if (seen === undefined) {
        seen = { parsed, keys: new SegmentKeys(this.#dek, parsed), slots: new Map() };
        this.#segments.set(key, seen);
      }
      for (let position = 0; position < slotsIn(bytes); position++) this.#slot(name, seen, position, bytes);
    }
  }

  #slot(name: string, { keys, slots, parsed }: SeenSegment, position: number, bytes: Buffer): void {
    const slot = slotBytes(bytes, position);
    const before = slots.get(position);
    if (before?.equals(slot) || slot.subarray(0, 64).equals(ZEROS) || !keys.holds(slot, position)) return;
    if (before !== undefined)
      this.conflicts.push(`position ${position} of ${name}, salt ${parsed.salt.toString('hex')}`);
    else slots.set(position, Buffer.from(slot));
  }

  get segments(): number {
    return this.#segments.size;
  }

  /** Distinct authentic slots. */
  get slots(): number {
    return [...this.#segments.values()].reduce((sum, { slots }) => sum + slots.size, 0);
  }

  /** Ciphertexts, by what they are: for the search for two that share a keystream. */
  *ciphertexts(): IterableIterator<Buffer> {
    for (const { slots } of this.#segments.values())
      for (const slot of slots.values()) yield slot.subarray(0, 4096);
  }

  /** Every working key of every segment, as the reference derives it. */
  keys(): Buffer[] {
    return [...this.#segments.values()].flatMap(({ parsed, keys }) => [
      keys.data,
      keys.slot,
      deriveKey(this.#dek, 'sealbd/v1/segment-meta', parsed.context),
    ]);
  }
}

/** True where some two of the ciphertexts differ by just `difference`, the XOR of two known plaintexts. */
export function sharesKeystream(ciphertexts: Iterable<Buffer>, difference: Uint8Array): boolean {
  const starts = new Set<string>();
  const length = 32;
  for (const bytes of ciphertexts) {
    const start = bytes.subarray(0, length);
    const text = start.toString('latin1');
    const other = Buffer.from(start.map((byte, i) => byte ^ difference[i])).toString('latin1');
    if (starts.has(other) || starts.has(text)) return true;
    starts.add(text);
  }
  return false;
}
