/** Reads a superblock by docs/FORMAT.md, as an outsider would: nothing here comes from src. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const STATES = ['', 'active', 'retired', 'pending'];
const FIXED_BYTES = 36;

export interface ParsedDek {
  readonly id: number;
  readonly state: string;
  readonly exposed: boolean;
  readonly keyUri: string;
  readonly resolvedKeyId: string;
  readonly wrapped: Buffer;
}

export interface ParsedSuperblock {
  readonly suite: number;
  readonly rewriting: boolean;
  readonly plain: boolean;
  readonly sizeInRoot: boolean;
  readonly activeDek: number;
  readonly uuid: Buffer;
  readonly generation: number;
  readonly deks: readonly ParsedDek[];
}

/** Of the volume whose directory this is. */
export function readSuperblock(volumePath: string): ParsedSuperblock {
  return parseSuperblock(readFileSync(join(volumePath, 'superblock')));
}

export function parseSuperblock(bytes: Buffer): ParsedSuperblock {
  if (bytes.toString('latin1', 0, 8) !== 'SBDSUP1\n') throw new Error('not a superblock');
  const deks: ParsedDek[] = [];
  let at = 64;
  for (let left = bytes.readUInt32LE(60); left > 0; left--) {
    deks.push(parseDek(bytes, at));
    at += bytes.readUInt32LE(at);
  }
  return {
    suite: bytes[10],
    rewriting: (bytes[11] & 1) !== 0,
    plain: (bytes[11] & 2) !== 0,
    sizeInRoot: (bytes[11] & 4) !== 0,
    activeDek: bytes.readUInt32LE(12),
    uuid: Buffer.from(bytes.subarray(16, 32)),
    generation: Number(bytes.readBigUInt64LE(32)),
    deks,
  };
}

function parseDek(bytes: Buffer, start: number): ParsedDek {
  let at = start + FIXED_BYTES;
  const strings: Buffer[] = [];
  for (let i = 0; i < 4; i++) {
    const length = bytes.readUInt16LE(at);
    strings.push(Buffer.from(bytes.subarray(at + 2, at + 2 + length)));
    at += 2 + length;
  }
  return {
    id: bytes.readUInt32LE(start + 4),
    state: STATES[bytes[start + 8]],
    exposed: (bytes[start + 9] & 1) !== 0,
    keyUri: strings[0].toString(),
    resolvedKeyId: strings[1].toString(),
    wrapped: strings[3],
  };
}
