/**
 * Reads a volume's files by docs/FORMAT.md, as an outsider would: nothing here comes from src. It knows just what
 * the security tests ask: segments, their slots, the wrapped DEK.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { cmac, crc32c, deriveKey, gcmOpen, unwrapDek } from './reference-crypto.js';

export const SLOT = 4128;
export const HEADER = 4096;

export interface ParsedSegment {
  readonly suite: number;
  readonly kind: number;
  readonly id: number;
  readonly salt: Buffer;
  /** suite ‖ origin uuid ‖ segment id ‖ salt. */
  readonly context: Buffer;
}

/** Undefined where the bytes do not start with a segment header. */
export function parseSegment(bytes: Buffer): ParsedSegment | undefined {
  if (bytes.length < HEADER || bytes.toString('latin1', 0, 8) !== 'SBDSEG1\n') return undefined;
  const salt = Buffer.from(bytes.subarray(48, 80));
  return {
    suite: bytes[10],
    kind: bytes[11],
    id: Number(bytes.readBigUInt64LE(32)),
    salt,
    context: Buffer.concat([bytes.subarray(10, 11), bytes.subarray(16, 32), bytes.subarray(32, 40), salt]),
  };
}

export function slotsIn(bytes: Buffer): number {
  return Math.max(0, Math.floor((bytes.length - HEADER) / SLOT));
}

export function slotBytes(bytes: Buffer, position: number): Buffer {
  return bytes.subarray(HEADER + position * SLOT, HEADER + (position + 1) * SLOT);
}

export interface ParsedMeta {
  readonly sequence: number;
  readonly lba: number;
  readonly kind: number;
}

export function slotMeta(slot: Buffer): ParsedMeta {
  return { sequence: slot.readUIntLE(4096, 6), lba: slot.readUIntLE(4103, 5), kind: slot[4108] };
}

/** Working keys of one segment. */
export class SegmentKeys {
  readonly #suite: number;
  readonly data: Buffer;
  readonly slot: Buffer;

  constructor(dek: Uint8Array, segment: ParsedSegment) {
    this.#suite = segment.suite;
    this.data = deriveKey(dek, 'sealbd/v1/segment-data', segment.context);
    this.slot = deriveKey(dek, 'sealbd/v1/segment-slot', segment.context);
  }

  /** Whether the slot is authentic at this position. */
  holds(slot: Buffer, position: number): boolean {
    const [block, meta, tag] = [slot.subarray(0, 4096), slot.subarray(4096, 4112), slot.subarray(4112)];
    if (this.#suite === 2) {
      const iv = Buffer.alloc(12);
      iv.writeUInt32BE(position, 8);
      return gcmOpen(this.data, iv, meta, block, tag) !== undefined;
    }
    const crc = Buffer.alloc(4);
    crc.writeUInt32LE(crc32c(block));
    const place = Buffer.alloc(4);
    place.writeUInt32BE(position);
    const mac = cmac(this.slot, Buffer.concat([place, meta, crc])).subarray(0, 12);
    return Buffer.concat([crc, mac]).equals(tag);
  }
}

/** The DEK of a volume whose key is in `keyring.json`, unwrapped by the reference. */
export function dekOfVolume(dataDirectory: string, volumePath: string, keyName: string): Buffer {
  const superblock = readFileSync(join(volumePath, 'superblock'));
  const uuid = superblock.subarray(16, 32);
  let at = 64;
  const dekId = superblock.readUInt32LE(at + 4);
  at += 36;
  const strings: Buffer[] = [];
  for (let i = 0; i < 4; i++) {
    const length = superblock.readUInt16LE(at);
    strings.push(superblock.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return unwrapDek(localKey(dataDirectory, keyName), strings[3], dekId, uuid);
}

export function localKey(dataDirectory: string, name: string): Buffer {
  const ring = JSON.parse(readFileSync(join(dataDirectory, 'keyring.json'), 'utf8')) as {
    keys: { name: string; key: string }[];
  };
  const found = ring.keys.find((key) => key.name === name);
  if (found === undefined) throw new Error(`no key ${name} in the keyring`);
  return Buffer.from(found.key, 'base64');
}

/** Every regular file of a directory, those that vanish meanwhile aside. */
export function readFiles(path: string): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    try {
      files.set(entry.name, readFileSync(join(path, entry.name)));
    } catch (error) {
      if ((error as { code?: string }).code !== 'ENOENT') throw error;
    }
  }
  return files;
}

/** Names, sizes and times: the same before and after where nothing happened in between. */
function stateOf(path: string): string {
  const stats = readdirSync(path).map((name) => {
    const stat = statSync(join(path, name), { bigint: true, throwIfNoEntry: false });
    return `${name} ${stat?.size} ${stat?.mtimeNs} ${stat?.ino}`;
  });
  return stats.sort().join('\n');
}

/** The files of a directory in use, as they were at one instant. */
export async function snapshotOf(path: string): Promise<Map<string, Buffer>> {
  for (let attempt = 0; attempt < 500; attempt++) {
    const before = stateOf(path);
    const files = readFiles(path);
    if (stateOf(path) === before) return files;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  throw new Error(`${path} never keeps still`);
}
