/** Checks a chain of backups: structure and checksums without any key, everything with the keys. */
import { createHash } from 'node:crypto';
import { bytesEqual } from '../base/bytes.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import { ARENA_CHUNK_BYTES, BACKUP_LANES, BLOCK_BYTES, SEGMENT_SLOTS, SLOT_BYTES } from '../base/limits.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { KeyHandle } from '../native/addon.js';
import type { BackupDirectory } from './backup-directory.js';
import { type ChainSegment, chainRuns, chainSegments } from './chain-map.js';
import { readData } from './data-reader.js';
import type { IndexEntry } from './index-codec.js';
import { MAP } from './names.js';
import { SlotWindow } from './slot-scan.js';

export interface VerifyBackupOptions {
  readonly chain: readonly BackupDirectory[];
  /** Undefined: only checksums are checked. */
  readonly keys: ReadonlyMap<number, KeyHandle> | undefined;
  readonly cipher: CipherPool;
  readonly signal: AbortSignal;
  onProgress(doneBytes: number, totalBytes: number): void;
}

export interface VerifiedBackup {
  readonly slots: number;
  /** In words; none where all is well. */
  readonly problems: string[];
}

export async function verifyBackup(options: VerifyBackupOptions): Promise<VerifiedBackup> {
  const problems: string[] = [];
  const total = options.chain.reduce((sum, { manifest }) => sum + manifest.slots, 0) * SLOT_BYTES;
  let done = 0;
  const progress = (slots: number): void => {
    done += slots * SLOT_BYTES;
    options.onProgress(done, total);
  };
  for (const backup of options.chain) {
    await attempt(problems, async () => {
      problems.push(...(await mapProblems(backup)));
      await verifyDataFiles(backup, await backup.index(), options, problems, progress);
    });
  }
  await attempt(problems, () => verifyMap(options));
  return { slots: done / SLOT_BYTES, problems: [...new Set(problems)] };
}

/** What does not authenticate, or is not there, is a problem; everything else is an error. */
async function attempt(problems: string[], work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!isSealbdError(error, 'INTEGRITY')) throw error;
    problems.push(messageOf(error));
  }
}

/** Whether the bytes of its map are those that the manifest names, in words; none where they are. */
export async function mapProblems(backup: BackupDirectory): Promise<string[]> {
  const { map } = backup.manifest;
  const file = await backup.openFile(MAP);
  try {
    const hash = createHash('sha256');
    const buffer = new Uint8Array(ARENA_CHUNK_BYTES);
    let bytes = 0;
    for (let read = buffer.length; read === buffer.length; bytes += read) {
      read = await file.read(buffer, bytes);
      hash.update(buffer.subarray(0, read));
    }
    const isWhole = bytes === map.bytes && bytesEqual(hash.digest(), map.sha256);
    return isWhole ? [] : [`${backup.path}: ${MAP}: wrong checksum`];
  } finally {
    await file.close();
  }
}

async function verifyDataFiles(
  backup: BackupDirectory,
  entries: readonly IndexEntry[],
  { keys, cipher, signal }: VerifyBackupOptions,
  problems: string[],
  progress: (slots: number) => void,
): Promise<void> {
  const idle = Array.from({ length: BACKUP_LANES }, () => new SlotWindow(cipher));
  const buffers = [...idle];
  try {
    await forEachLimited(entries, BACKUP_LANES, async (entry) => {
      const buffer = idle.pop()!;
      try {
        const window = async ({ count }: { readonly count: number }) => progress(count);
        const problem = await readData({ backup, entry, buffer, keys, signal }, { window });
        if (problem !== undefined) problems.push(`${backup.path}: ${problem}`);
      } finally {
        idle.push(buffer);
      }
    });
  } finally {
    for (const buffer of buffers) buffer.free();
  }
}

/** Every slot that the map names is in the chain, and the map says as much as the manifest. */
async function verifyMap({ chain, keys, signal }: VerifyBackupOptions): Promise<void> {
  const segments = await chainSegments(chain);
  if (keys === undefined) return;
  const newest = chain[chain.length - 1];
  let blocks = 0;
  for await (const batch of chainRuns(chain, keys)) {
    signal.throwIfAborted();
    for (let i = 0; i < batch.count; i++) {
      blocks += batch.blocks[i];
      assertHas(segments, batch.lba[i], batch.blocks[i], batch.slot[i]);
    }
  }
  assertMapped(newest, blocks);
}

export function assertMapped({ manifest, path }: BackupDirectory, blocks: number): void {
  if (blocks === manifest.mappedBlocks) return;
  throw damagedMap(path, `it maps ${blocks} blocks instead of ${manifest.mappedBlocks}`);
}

/** The segment of a run all of whose slots are in the chain. INTEGRITY where one is not. */
export function assertHas(
  segments: ReadonlyMap<number, ChainSegment>,
  lba: number,
  blocks: number,
  slot: number,
): ChainSegment {
  const position = slot % SEGMENT_SLOTS;
  const segment = segments.get((slot - position) / SEGMENT_SLOTS);
  for (let i = 0; i < blocks; i++) {
    if (segment?.parts.some(({ entry }) => entry.slots.has(position + i))) continue;
    throw damagedMap(
      'the chain',
      `block ${lba + i} (offset ${(lba + i) * BLOCK_BYTES}) is in none of its data files`,
    );
  }
  return segment!;
}

function damagedMap(path: string, problem: string): Error {
  return new SealbdError('INTEGRITY', `${path}: ${MAP}: ${problem}`);
}
