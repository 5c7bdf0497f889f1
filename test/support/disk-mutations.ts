/** What an attacker with write access, or a bad disk, can do to the files of a volume. Seeded: the seed replays it. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { memoryDirectory } from './key-fixtures.js';
import { volumePath } from './sealed-volume.js';
import { HEADER, SLOT, slotsIn } from './volume-parser.js';

export type Image = Map<string, Buffer>;

/** Puts the files of an image, a volume's and its keyring, into a data directory of their own. */
export function lay(image: Image): string {
  const dataDirectory = memoryDirectory();
  const path = volumePath(dataDirectory);
  mkdirSync(path, { recursive: true });
  for (const [name, bytes] of image) {
    writeFileSync(join(name === 'keyring.json' ? dataDirectory : path, name), bytes, { mode: 0o600 });
  }
  return dataDirectory;
}

export class Mutator {
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** Changes a copy of the image in one to three ways. Files not touched stay the same buffers. */
  mutate(original: Image): { image: Image; done: string[] } {
    const image = new Map(original);
    const done: string[] = [];
    for (let left = this.#random() < 0.7 ? 1 : 2 + this.#int(2); left > 0; left--) {
      done.push(this.#one(image, original));
    }
    return { image, done };
  }

  #int(below: number): number {
    return Math.floor(this.#random() * below);
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#int(from.length)];
  }

  #one(image: Image, original: Image): string {
    const what = this.#random();
    if (what < 0.3) return this.#flip(image);
    if (what < 0.4) return this.#moveSlot(image, original);
    if (what < 0.5) return this.#swapSlots(image);
    if (what < 0.58) return this.#swapRanges(image);
    if (what < 0.66) return this.#resize(image);
    if (what < 0.73) return this.#delete(image);
    if (what < 0.82) return this.#swapFiles(image);
    if (what < 0.92) return this.#zeroRange(image);
    return this.#bothCopies(image);
  }

  /** A kind of file first, so that the many segments do not hide the few others. */
  #file(
    image: Image,
    kinds: readonly string[] = ['superblock', 'checkpoint', 'map-', 'seg-', 'seg-', 'keyring'],
  ): string {
    for (;;) {
      const kind = this.#pick(kinds);
      const names = [...image.keys()].filter((name) => name.startsWith(kind) && image.get(name)!.length > 0);
      if (names.length > 0) return this.#pick(names);
      if (![...image.keys()].some((name) => kinds.some((other) => name.startsWith(other))))
        return this.#pick([...image.keys()]);
    }
  }

  /** Of a segment: header, slot trailers and the end get as much attention as the payload. */
  #offset(name: string, bytes: Buffer): number {
    const slots = slotsIn(bytes);
    if (!name.startsWith('seg-') || slots === 0) return this.#int(bytes.length);
    const where = this.#random();
    if (where < 0.2) return this.#int(128);
    if (where < 0.25) return HEADER - 16 + this.#int(16);
    if (where < 0.6) return HEADER + this.#int(slots) * SLOT + 4096 + this.#int(32);
    if (where < 0.75) return bytes.length - 1 - this.#int(Math.min(bytes.length, 200));
    return this.#int(bytes.length);
  }

  #flip(image: Image): string {
    const name = this.#file(image);
    const bytes = Buffer.from(image.get(name)!);
    const at = this.#offset(name, bytes);
    bytes[at] ^= 1 << this.#int(8);
    image.set(name, bytes);
    return `flip a bit of byte ${at} of ${name}`;
  }

  #segmentWithSlots(image: Image): string {
    const names = [...image.keys()].filter(
      (name) => name.startsWith('seg-') && slotsIn(image.get(name)!) > 1,
    );
    return names.length === 0 ? this.#file(image) : this.#pick(names);
  }

  /** An old slot again at another place: of the same segment or another one. */
  #moveSlot(image: Image, original: Image): string {
    const [from, to] = [this.#segmentWithSlots(original), this.#segmentWithSlots(image)];
    const target = Buffer.from(image.get(to)!);
    const [i, j] = [this.#int(slotsIn(original.get(from)!)), this.#int(slotsIn(target))];
    original.get(from)!.copy(target, HEADER + j * SLOT, HEADER + i * SLOT, HEADER + (i + 1) * SLOT);
    image.set(to, target);
    return `copy slot ${i} of ${from} to slot ${j} of ${to}`;
  }

  #swapSlots(image: Image): string {
    const a = this.#segmentWithSlots(image);
    const b = this.#random() < 0.5 ? a : this.#segmentWithSlots(image);
    const i = HEADER + this.#int(slotsIn(image.get(a)!)) * SLOT;
    const j = HEADER + this.#int(slotsIn(image.get(b)!)) * SLOT;
    // The whole slot, its payload, or its trailer.
    const [from, length] = this.#pick([
      [0, SLOT],
      [0, 4096],
      [4096, 32],
      [4096, 16],
      [4112, 16],
    ]);
    this.#swap(image, { name: a, at: i + from }, { name: b, at: j + from }, length);
    return `swap ${length} bytes at ${i + from} of ${a} with ${j + from} of ${b}`;
  }

  #swapRanges(image: Image): string {
    const a = this.#file(image);
    const b = this.#file(image);
    const length = 1 + this.#int(Math.min(image.get(a)!.length, image.get(b)!.length, 5000));
    const i = this.#int(image.get(a)!.length - length + 1);
    const j = this.#int(image.get(b)!.length - length + 1);
    this.#swap(image, { name: a, at: i }, { name: b, at: j }, length);
    return `swap ${length} bytes at ${i} of ${a} with ${j} of ${b}`;
  }

  #swap(
    image: Image,
    a: { name: string; at: number },
    b: { name: string; at: number },
    length: number,
  ): void {
    const one = Buffer.from(image.get(a.name)!.subarray(a.at, a.at + length));
    const other = Buffer.from(image.get(b.name)!.subarray(b.at, b.at + length));
    for (const [{ name, at }, bytes] of [
      [a, other],
      [b, one],
    ] as const) {
      const changed = Buffer.from(image.get(name)!);
      changed.set(bytes.subarray(0, changed.length - at), at);
      image.set(name, changed);
    }
  }

  #resize(image: Image): string {
    const name = this.#file(image);
    const bytes = image.get(name)!;
    if (this.#random() < 0.7) {
      const length = this.#int(bytes.length);
      image.set(name, Buffer.from(bytes.subarray(0, length)));
      return `truncate ${name} to ${length}`;
    }
    const more = image.get(this.#file(image))!.subarray(0, 1 + this.#int(9000));
    image.set(name, Buffer.concat([bytes, more]));
    return `extend ${name} by ${more.length}`;
  }

  #delete(image: Image): string {
    const name = this.#file(image);
    image.delete(name);
    return `delete ${name}`;
  }

  #swapFiles(image: Image): string {
    const kind = this.#pick(['seg-', 'seg-', 'map-', '']);
    const a = this.#file(image, [kind]);
    const b = this.#file(image, [kind]);
    const [one, other] = [image.get(a)!, image.get(b)!];
    image.set(a, other).set(b, one);
    return `swap the files ${a} and ${b}`;
  }

  #zeroRange(image: Image): string {
    const name = this.#file(image);
    const bytes = Buffer.from(image.get(name)!);
    const at = this.#offset(name, bytes);
    const length = this.#pick([1, 16, SLOT, 3 * SLOT, 65_536]);
    bytes.fill(0, at, Math.min(at + length, bytes.length));
    image.set(name, bytes);
    return `zero ${length} bytes at ${at} of ${name}`;
  }

  /** The same change to both copies of a root: no copy is left to fall back on. */
  #bothCopies(image: Image): string {
    const name = this.#pick(['superblock', 'checkpoint']);
    const bytes = image.get(name);
    if (bytes === undefined || bytes.length === 0) return this.#flip(image);
    const changed = Buffer.from(bytes);
    const at = this.#int(changed.length);
    changed[at] ^= 1 << this.#int(8);
    image.set(name, changed).set(`${name}.bak`, Buffer.from(changed));
    return `flip a bit of byte ${at} of both copies of ${name}`;
  }
}
