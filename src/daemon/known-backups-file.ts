/** The content of `backups.json` (docs/FORMAT.md, "Known backups"). Pure. */
import { z } from 'zod';
import { KNOWN_BACKUPS_MAX, SMALL_FILE_BYTES_MAX } from '../base/limits.js';

const placeSchema = z.object({ dev: z.string(), ino: z.string(), birthtimeNs: z.string() });
const knownBackupSchema = z.object({
  path: z.string(),
  /** Of the directory above it. Undefined where it was not noted, or could not be. */
  place: placeSchema.optional(),
  /** It was seen to be gone before something else came to its path. */
  gone: z.boolean().default(false),
  /** Null while it has no manifest. */
  uuid: z.string().nullable(),
  volume: z.string(),
  volumeUuid: z.string(),
  createdAt: z.iso.datetime(),
  deks: z.array(
    z.object({ id: z.int(), keyUri: z.string(), resolvedKeyId: z.string(), keyVersion: z.string() }),
  ),
});
const fileSchema = z.object({
  version: z.literal(1),
  /** Backups that were dropped from the list, and may be there yet. */
  forgotten: z.int().nonnegative().default(0),
  backups: z.array(knownBackupSchema),
});

export type KnownBackup = z.output<typeof knownBackupSchema>;

export interface KnownFile {
  /** Oldest first. */
  readonly backups: readonly KnownBackup[];
  readonly forgotten: number;
}

export const NOTHING_KNOWN: KnownFile = { backups: [], forgotten: 0 };

/** Throws where it is none of ours. */
export function decodeKnown(bytes: Uint8Array): KnownFile {
  const { backups, forgotten } = fileSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  return { backups, forgotten };
}

export function encodeKnown({ backups, forgotten }: KnownFile): Uint8Array {
  return Buffer.from(`${JSON.stringify({ version: 1, forgotten, backups }, null, 1)}\n`);
}

/** What the count in `forgotten`, and the frame of the list, can take. */
const FRAME_BYTES = 256;

/** How many of the oldest have to go for the list to have its length, and the file to be one that can be read back. */
export function oldestBeyond({ backups }: KnownFile): number {
  let room = SMALL_FILE_BYTES_MAX - FRAME_BYTES;
  let kept = 0;
  for (const backup of [...backups].reverse()) {
    room -= encodeKnown({ backups: [backup], forgotten: 0 }).length;
    if (room < 0 || kept === KNOWN_BACKUPS_MAX) break;
    kept += 1;
  }
  return backups.length - kept;
}
