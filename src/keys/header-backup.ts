/**
 * A copy of a superblock for safekeeping: without it, losing both copies loses the volume. It holds DEKs in their
 * wrapped form only, so it is as secret as the KMS key is.
 *
 * magic `SBDHDR1\n` · version u16 · reserved u16 · length u32 · superblock bytes · CRC32C u32 of all before it
 */
import { ByteReader, ByteWriter, bytesEqual } from '../base/bytes.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { SUPERBLOCK_BYTES_MAX } from '../base/limits.js';
import { formatUuid } from '../base/random.js';
import type { KeyProviders } from '../kms/registry.js';
import { addon } from '../native/addon.js';
import type { Store } from '../store/store.js';
import { type DekRing, withKeys } from './dek-ring.js';
import { deksOnDisk } from './deks-on-disk.js';
import {
  type HeaderCopies,
  newestCopy,
  readHeaderCopies,
  replaceHeaderCopies,
  writeHeaderCopies,
} from './header-copies.js';
import { assertAuthentic, type HeaderPins, unwrapHeader } from './header-unwrap.js';
import { markExposed, type RewrapTarget } from './rewrap.js';
import {
  type DecodedSuperblock,
  type DekRecord,
  decodeSuperblock,
  encodeSuperblock,
  type Superblock,
  UUID_BYTES,
} from './superblock.js';

const MAGIC = 'SBDHDR1\n';
const VERSION = 1;
const FIXED_BYTES = 16;
const CRC_BYTES = 4;

export function encodeHeaderBackup(superblock: Uint8Array): Uint8Array {
  const writer = new ByteWriter(FIXED_BYTES + superblock.length + CRC_BYTES);
  writer.text(MAGIC).u16(VERSION).zeros(2).u32(superblock.length).bytes(superblock);
  return writer.u32(addon.crc32c(writer.written(), 0)).written();
}

/** The superblock's bytes. INTEGRITY where the file is not a backup, or is damaged. */
export function decodeHeaderBackup(file: Uint8Array): Uint8Array {
  const reader = new ByteReader(file, 'header backup');
  reader.expect(MAGIC);
  const version = reader.u16();
  if (version !== VERSION) throw reader.error(`version ${version}, this program knows ${VERSION}`);
  reader.zeros(2);
  const length = reader.u32();
  if (length > SUPERBLOCK_BYTES_MAX) throw reader.error('too long');
  const bytes = reader.bytes(length);
  const crc = addon.crc32c(file.subarray(0, reader.offset), 0);
  if (reader.u32() !== crc) throw reader.error('wrong CRC: the file is damaged');
  reader.end();
  return bytes;
}

/** Backs up the newest copy that decodes. */
export async function backUpHeader(store: Store): Promise<Uint8Array> {
  return encodeHeaderBackup(newestCopy(await readHeaderCopies(store)).bytes);
}

export interface RestoreHeaderOptions {
  readonly store: Store;
  readonly providers: KeyProviders;
  readonly pins: HeaderPins;
  readonly file: Uint8Array;
  /** Allows an older generation to replace a newer good superblock. */
  readonly force: boolean;
}

export interface Restored {
  /** What was there, as far as it could be read. */
  readonly before: Superblock | undefined;
  readonly after: Superblock;
}

/**
 * Puts a backed-up superblock in place of both copies. The volume must not be open.
 *
 * - The backup must decode, and authenticate under the key that it names: a wrong one can't do harm.
 * - It must be of this volume: the uuid of a superblock that still decodes, else of the checkpoint, decides. This
 *   can't be forced.
 * - A superblock that holds a DEK which the backup lacks, and that files of the volume are under, is replaced only where it
 *   is proven to be of no use: it may have the only wrap of that DEK, and the data would be lost for ever. This can't be forced.
 * - Any other superblock of a higher generation that decodes is replaced with `force` only: the backup may have another size.
 * - A DEK that was exposed since the backup stays so: it is wrapped anew, with the mark, by the key that the backup names.
 */
export async function restoreHeader(options: RestoreHeaderOptions): Promise<Restored> {
  const bytes = decodeHeaderBackup(options.file);
  const backup = decodeSuperblock(bytes);
  await assertSameVolume(options.store, backup);
  const found = await readHeaderCopies(options.store);
  await assertLosesNoDek(found, backup.superblock, options);
  const present = found.copies[0]?.decoded.superblock;
  const { generation } = backup.superblock;
  if (present !== undefined && present.generation > generation && !options.force) {
    throw new SealbdError(
      'CONFLICT',
      `the volume has a good superblock of generation ${present.generation}, the backup is of ${generation}; --force replaces it`,
    );
  }
  const exposed = exposedSince(backup.superblock, found);
  const ring = await unwrapHeader(backup, options.providers, options.pins);
  try {
    if (exposed.size === 0) {
      await writeHeaderCopies(options.store, bytes);
      return { before: present, after: backup.superblock };
    }
    const target = new RestoredHeader(options.store, backup.superblock, ring, present);
    await markExposed(target, exposed, { providers: options.providers, clock: options.providers.clock });
    return { before: present, after: target.superblock };
  } finally {
    ring.revoke();
  }
}

/** CONFLICT where a superblock in place opens, or may open yet, and holds a DEK in use that the backup does not have. */
async function assertLosesNoDek(
  { copies }: HeaderCopies,
  { deks }: Superblock,
  { store, providers, pins }: RestoreHeaderOptions,
): Promise<void> {
  const inUse = await deksOnDisk(store);
  for (const { name, decoded } of copies) {
    const missing = decoded.superblock.deks.filter((dek) => {
      return inUse.has(dek.id) && !deks.some((other) => isSameDek(dek, other));
    });
    if (missing.length === 0) continue;
    const ids = missing.map(({ id }) => id).join(', ');
    const lost = `the ${name} in place has DEK ${ids}, which the backup has not: what is under it would be lost`;
    try {
      (await unwrapHeader(decoded, providers, pins)).revoke();
    } catch (error) {
      // Damaged, or of somebody else: nothing hangs on it.
      if (isSealbdError(error, 'INTEGRITY')) continue;
      throw new SealbdError('CONFLICT', `${lost}, should it open yet: ${messageOf(error)}`, { cause: error });
    }
    throw new SealbdError('CONFLICT', `${lost}; "sealbd volume header-backup" makes a new backup`);
  }
}

function isSameDek(one: DekRecord, other: DekRecord): boolean {
  return one.id === other.id && bytesEqual(one.checkValue, other.checkValue);
}

/** DEKs that a copy on the disk calls exposed and the backup does not. The check value tells them from others of the same id. */
function exposedSince({ deks }: Superblock, { copies }: HeaderCopies): Set<number> {
  const known = copies.flatMap((copy) => copy.decoded.superblock.deks).filter((dek) => dek.exposed);
  const since = deks.filter((dek) => {
    return !dek.exposed && known.some((other) => isSameDek(dek, other));
  });
  return new Set(since.map((dek) => dek.id));
}

/** A backed-up superblock that is changed on its way into the two copies; its generation is above what is there. */
class RestoredHeader implements RewrapTarget {
  superblock: Superblock;
  readonly #store: Store;
  readonly #ring: DekRing;
  readonly #generation: number;

  constructor(store: Store, backup: Superblock, ring: DekRing, present: Superblock | undefined) {
    this.superblock = backup;
    this.#store = store;
    this.#ring = ring;
    this.#generation = Math.max(backup.generation, present?.generation ?? 0) + 1;
  }

  get deks(): DekRing['handles'] {
    return this.#ring.handles;
  }

  async update(
    change: Partial<Superblock>,
    prove: (written: Superblock) => Promise<void> = async () => undefined,
  ): Promise<void> {
    const next = { ...this.superblock, ...change, generation: this.#generation };
    const bytes = withKeys(this.deks, (keyOf) => encodeSuperblock(next, keyOf));
    await replaceHeaderCopies(this.#store, bytes, {
      prove: async (written) => {
        assertAuthentic(written, this.deks);
        await prove(written.superblock);
      },
      committed: () => {
        this.superblock = next;
      },
    });
  }
}

const CHECKPOINT_MAGIC = Buffer.from('SBDCKP1\n');
const CHECKPOINT_UUID_AT = 16;

async function assertSameVolume(store: Store, backup: DecodedSuperblock): Promise<void> {
  const { uuid } = backup.superblock;
  const found = await readHeaderCopies(store);
  const uuids = found.copies.map((copy) => copy.decoded.superblock.uuid);
  if (uuids.length === 0) {
    for (const name of ['checkpoint', 'checkpoint.bak']) {
      const bytes = await store.readSmall(name);
      if (bytes === undefined || !bytesEqual(bytes.subarray(0, CHECKPOINT_MAGIC.length), CHECKPOINT_MAGIC))
        continue;
      uuids.push(bytes.subarray(CHECKPOINT_UUID_AT, CHECKPOINT_UUID_AT + UUID_BYTES));
    }
  }
  const other = uuids.find((candidate) => !bytesEqual(candidate, uuid));
  if (other === undefined) return;
  throw new SealbdError(
    'CONFLICT',
    `the backup is of volume ${formatUuid(uuid)}, this is ${formatUuid(other)}`,
  );
}
