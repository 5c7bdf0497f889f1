/** Looks for secrets in files, core dumps and the memory of a running process. */
import { closeSync, openSync, readFileSync, readSync, statSync } from 'node:fs';

export interface Needle {
  readonly name: string;
  readonly bytes: Buffer;
}

const CHUNK_BYTES = 1 << 22;
const NEEDLE_BYTES_MIN = 8;
const PAGE_BYTES = 4096;
const ZEROS = Buffer.alloc(1 << 16);

/** How a secret might be lying around: raw, as hex, as base64. */
export function formsOf(name: string, secret: Buffer): Needle[] {
  const hex = secret.toString('hex');
  return [
    { name: `${name}, raw`, bytes: secret },
    { name: `${name}, hex`, bytes: Buffer.from(hex) },
    { name: `${name}, upper-case hex`, bytes: Buffer.from(hex.toUpperCase()) },
    { name: `${name}, base64`, bytes: Buffer.from(secret.toString('base64').replace(/=+$/, '')) },
    { name: `${name}, base64url`, bytes: Buffer.from(secret.toString('base64url')) },
    // V8 keeps a string with any character above 255 in two bytes each.
    { name: `${name}, hex in UTF-16`, bytes: Buffer.from(hex, 'utf16le') },
    {
      name: `${name}, base64 in UTF-16`,
      bytes: Buffer.from(secret.toString('base64'), 'utf16le').subarray(0, 80),
    },
  ];
}

/** Finds any of many needles in one pass. */
export class Scanner {
  readonly #starts = new Uint8Array(0x1_0000);
  readonly #byStart = new Map<number, Needle[]>();
  readonly longest: number;

  constructor(needles: readonly Needle[]) {
    this.longest = Math.max(...needles.map(({ bytes }) => bytes.length));
    for (const { name, bytes } of needles) {
      // A needle starts with a byte that is not zero, so that empty memory can be skipped.
      const needle = { name, bytes: bytes.subarray(bytes.findIndex((byte) => byte !== 0)) };
      if (needle.bytes.length < NEEDLE_BYTES_MIN) throw new Error(`${name} is too short to look for`);
      const start = needle.bytes.readUInt32LE();
      this.#starts[start & 0xffff] = 1;
      this.#byStart.set(start, [...(this.#byStart.get(start) ?? []), needle]);
    }
  }

  /** Calls `found` for each hit that starts below `end`. */
  scan(bytes: Buffer, end: number, found: (needle: Needle, at: number) => void): void {
    for (let from = 0; from < end; from += ZEROS.length) {
      const to = Math.min(from + ZEROS.length, end);
      // Most of what is scanned is empty, and no needle starts with a zero.
      if (!bytes.subarray(from, to).equals(ZEROS.subarray(0, to - from))) {
        this.#scan(bytes, from, to, found);
      }
    }
  }

  #scan(bytes: Buffer, from: number, end: number, found: (needle: Needle, at: number) => void): void {
    const starts = this.#starts;
    const last = Math.min(end, bytes.length - NEEDLE_BYTES_MIN + 1);
    for (let at = from; at < last; at++) {
      if (starts[bytes[at] | (bytes[at + 1] << 8)] === 0) continue;
      for (const needle of this.#byStart.get(bytes.readUInt32LE(at)) ?? []) {
        if (needle.bytes.equals(bytes.subarray(at, at + needle.bytes.length))) found(needle, at);
      }
    }
  }
}

/** Names of the needles that are in the buffer. */
export function scanBuffer(bytes: Buffer, needles: readonly Needle[]): string[] {
  const names = new Set<string>();
  new Scanner(needles).scan(bytes, bytes.length, ({ name }) => names.add(name));
  return [...names];
}

/** Names of the needles that are in [from, to) of the file. */
function scanRange(fd: number, from: number, to: number, scanner: Scanner): Set<string> {
  const names = new Set<string>();
  const buffer = Buffer.alloc(CHUNK_BYTES + scanner.longest);
  for (let at = from; at < to; at += CHUNK_BYTES) {
    const read = readSync(fd, buffer, 0, Math.min(buffer.length, to - at), at);
    const whole = at + CHUNK_BYTES < to ? Math.min(read, CHUNK_BYTES) : read;
    scanner.scan(buffer.subarray(0, read), whole, ({ name }) => names.add(name));
  }
  return names;
}

export function scanFile(path: string, needles: readonly Needle[]): string[] {
  const fd = openSync(path, 'r');
  try {
    return [...scanRange(fd, 0, statSync(path).size, new Scanner(needles))];
  } finally {
    closeSync(fd);
  }
}

export interface Hit {
  readonly name: string;
  /** VmFlags of the mapping: 'dd' is left out of core dumps, 'lo' locked, 'wf' or 'dc' kept from children. */
  readonly flags: readonly string[];
}

interface Mapping {
  readonly from: number;
  readonly to: number;
  readonly flags: readonly string[];
}

/** Every mapping that can hold what the program wrote. */
function mappings(pid: number): Mapping[] {
  const found: Mapping[] = [];
  let current: { from: number; to: number; wanted: boolean } | undefined;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'latin1').split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (r?)(w?)\S* \S+ \S+ (\d+)\s*(.*)$/.exec(line);
    if (head !== null) {
      const [, from, to, readable, writable, inode, name] = head;
      const wanted = readable !== '' && (writable !== '' || inode === '0') && !name.startsWith('[v');
      current = { from: Number.parseInt(from, 16), to: Number.parseInt(to, 16), wanted };
    } else if (line.startsWith('VmFlags:') && current?.wanted === true) {
      found.push({
        from: current.from,
        to: current.to,
        flags: line.slice('VmFlags:'.length).trim().split(' '),
      });
    }
  }
  return found;
}

/** The parts of a mapping that have pages: most of what a process maps it never touched. */
function* present(pagemap: number, { from, to }: Mapping): IterableIterator<{ from: number; to: number }> {
  const entries = Buffer.alloc(((to - from) / PAGE_BYTES) * 8);
  const pages = readSync(pagemap, entries, 0, entries.length, (from / PAGE_BYTES) * 8) / 8;
  let start = 0;
  for (let page = 0; page <= pages; page++) {
    // Bit 63: present, bit 62: swapped.
    if (page < pages && (entries[page * 8 + 7] & 0xc0) !== 0) continue;
    if (page > start) yield { from: from + start * PAGE_BYTES, to: from + page * PAGE_BYTES };
    start = page + 1;
  }
}

/** What the memory of a process holds, and in which kind of mapping. */
export function scanProcess(pid: number, needles: readonly Needle[]): Hit[] {
  const scanner = new Scanner(needles);
  const hits: Hit[] = [];
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  const pagemap = openSync(`/proc/${pid}/pagemap`, 'r');
  try {
    for (const mapping of mappings(pid)) {
      for (const { from, to } of present(pagemap, mapping)) {
        for (const name of scanRange(memory, from, to, scanner)) hits.push({ name, flags: mapping.flags });
      }
    }
  } finally {
    closeSync(memory);
    closeSync(pagemap);
  }
  return hits;
}
