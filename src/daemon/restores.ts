/** `restore` and `snapshot clone`: jobs that make a volume out of another one's segments, all of it or nothing. */
import { statfs } from 'node:fs/promises';
import { isAbsolute, resolve } from 'node:path';
import type { JobInfo, VerifyResult } from '../admin/schemas.js';
import { type BackupDirectory, openChain } from '../backup/backup-directory.js';
import { type ChainKeys, chainDeks, openChainKeys } from '../backup/chain-keys.js';
import { cloneSnapshot } from '../backup/clone.js';
import { restoreChain } from '../backup/restore.js';
import { onAbort } from '../base/abort.js';
import { suiteName } from '../base/ciphers.js';
import type { Clock } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import { SLOT_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { formatUuid, type RandomSource } from '../base/random.js';
import { formatSize } from '../base/units.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import { RESTORE_LIMITS, whyNotInherited } from '../keys/inheritance.js';
import type { GuardedControl, JobControl, JobKeys } from '../keys/job-keys.js';
import {
  type RestoredHeader,
  type RestoredHeaderOptions,
  writeRestoredHeader,
} from '../keys/restored-header.js';
import { newestDek, type Superblock } from '../keys/superblock.js';
import type { KeyProviders } from '../kms/registry.js';
import { SUITE_NONE } from '../native/addon.js';
import { FsStore } from '../store/fs-store.js';
import type { PinnedVolume } from '../volume/pin.js';
import type { BackupFiles } from './backup-files.js';
import type { Jobs } from './jobs.js';
import type { KnownBackups } from './known-backups.js';
import { openDevice } from './open-device.js';
import type { Actor, VolumeEvent } from './volume-events.js';
import type { VolumeFiles } from './volume-files.js';
import type { VolumeManager } from './volume-manager.js';
import { resolveKeyUri } from './volume-request.js';

export interface RestoresOptions {
  readonly volumes: VolumeManager;
  readonly files: VolumeFiles;
  readonly jobs: Jobs;
  readonly jobKeys: JobKeys;
  readonly providers: KeyProviders;
  readonly cipher: CipherPool;
  /** What a volume of this size keeps for a full disk. */
  reserveBytes(sizeBytes: number): number;
  readonly pins: ReadonlyMap<string, HeaderPins>;
  readonly known: KnownBackups;
  readonly backupFiles: BackupFiles;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
  record(event: VolumeEvent): void;
}

export interface RestoreRequest {
  readonly path: string;
  readonly salvage: boolean;
  /** Takes a backup of a `none` volume too, and one in which some of it is in plaintext yet. */
  readonly plaintext?: boolean | undefined;
}

/** What the new volume takes over. */
type Inherited = Pick<RestoredHeaderOptions, 'sizeBytes' | 'suite' | 'plain' | 'from' | 'deks' | 'handles'>;
type Fill = (store: FsStore, header: RestoredHeader) => Promise<VerifyResult>;

export class Restores {
  readonly #options: RestoresOptions;

  constructor(options: RestoresOptions) {
    this.#options = options;
  }

  /**
   * Before anything is made: the chain must be whole, each key usable, the name free, and there must be room. KEY_UNAVAILABLE
   * names the key that is not. CONFLICT where nothing but checksums speaks for the backup, and that was not asked for.
   */
  async restore(name: string, request: RestoreRequest, by: Actor): Promise<JobInfo> {
    const { jobs, jobKeys, providers } = this.#options;
    if (!isAbsolute(request.path))
      throw new SealbdError('USAGE', `${request.path}: expected an absolute path`);
    const path = resolve(request.path);
    const chain = await openChain(path, (at) => this.#options.backupFiles.at(at));
    const { manifest } = chain[chain.length - 1];
    const deks = chainDeks(chain);
    if (request.plaintext !== true) {
      if (manifest.suite === SUITE_NONE) throw plaintextUnasked(path);
      if (chain.some(({ manifest: one }) => one.plain)) throw plainUnasked(path);
    }
    this.#assertAllowed(name, { ...manifest, deks });
    const problem = whyNotInherited(manifest, deks, RESTORE_LIMITS);
    if (problem !== undefined)
      throw new SealbdError('CONFLICT', `${path} can not be restored, since ${problem}`);
    const keys = await openChainKeys(chain, providers);
    try {
      await this.#assertRoom(manifest.mappedBlocks, manifest.sizeBytes);
      return jobs.start('restore', name, (control) => {
        const held = { ...keys, deks, uuid: manifest.uuid };
        return jobKeys.during(`restore ${name}`, control, held, (guarded) => {
          return this.#restore(name, chain, keys, request.salvage, guarded, by);
        });
      });
    } catch (error) {
      keys.release();
      throw error;
    }
  }

  async #restore(
    name: string,
    chain: readonly BackupDirectory[],
    keys: ChainKeys,
    salvage: boolean,
    control: GuardedControl,
    by: Actor,
  ): Promise<VerifyResult> {
    const { cipher, known, log } = this.#options;
    const { manifest } = chain[chain.length - 1];
    const { path } = chain[chain.length - 1];
    const { sizeBytes, suite, plain } = manifest;
    const { handles } = keys;
    const inherited = { sizeBytes, suite, plain, from: manifest, deks: chainDeks(chain), handles };
    await known.note(path, manifest, inherited.deks);
    const result = await this.#make(name, inherited, by, async (store, { superblock, key, release }) => {
      control.alsoWipe(release);
      const identity = { store, uuid: superblock.uuid, dekId: superblock.activeDek, key };
      const restored = await restoreChain({ ...control, ...identity, chain, keys: handles, cipher, salvage });
      control.signal.throwIfAborted(); // Its keys are wiped: what could not be read any more is not lost.
      const { blocks: checkedBlocks, lost } = restored;
      return { checkedBlocks, lost, problems: [], restored: protectionOf(superblock) };
    });
    this.#record('restore', name, by, { path, source: formatUuid(manifest.uuid) });
    if (result.lost.length > 0)
      log.error({ volume: name, path, lost: result.lost }, 'restored without what is lost');
    else log.info({ volume: name, path, blocks: result.checkedBlocks, ...result.restored }, 'restored');
    return result;
  }

  /**
   * A volume of its own that begins as the snapshot is. Files are shared where the file system can. CONFLICT, and nothing is begun,
   * where its superblock can't hold all that it would take over; ENOSPC where there is no room for what can't be shared.
   */
  async clone(name: string, snapshot: string, newName: string, by: Actor): Promise<JobInfo> {
    const { volumes, jobs } = this.#options;
    const volume = volumes.get(name);
    const device = openDevice(volume);
    this.#assertAllowed(newName, volume.superblock!);
    const pin = await device.pin(snapshot);
    try {
      const work = async (control: JobControl): Promise<VerifyResult> => {
        try {
          return await this.#clone(name, snapshot, pin, newName, control, by);
        } finally {
          await pin.release();
        }
      };
      const { from, deks } = await this.#inheritedOf(name, pin);
      const problem = whyNotInherited(from, deks);
      if (problem !== undefined)
        throw new SealbdError(
          'CONFLICT',
          `"${name}" can not be cloned, since ${problem}: re-encrypt it first`,
        );
      // Sealed segments are linked, where the file system can: they take nothing.
      const copied = pin.segments().filter(({ sealed }) => !sealed);
      const blocks = copied.reduce((sum, { slots }) => sum + slots, 0);
      await this.#assertRoom(blocks, pin.sizeBytes);
      return jobs.start('clone', newName, work, { source: name });
    } catch (error) {
      await pin.release();
      throw error;
    }
  }

  async #clone(
    name: string,
    snapshot: string,
    source: PinnedVolume,
    newName: string,
    control: JobControl,
    by: Actor,
  ): Promise<VerifyResult> {
    const { volumes, log } = this.#options;
    const from = volumes.get(name).store;
    const inherited = await this.#inheritedOf(name, source);
    const result = await this.#make(newName, inherited, by, async (store, { superblock, key, release }) => {
      const settled = onAbort(control.signal, release);
      try {
        control.signal.throwIfAborted();
        const identity = { store, uuid: superblock.uuid, dekId: superblock.activeDek, key };
        const blocks = await cloneSnapshot({ ...control, ...identity, source, from });
        return { checkedBlocks: blocks, lost: [], problems: [] };
      } finally {
        settled();
      }
    });
    this.#record('clone', newName, by, { source: formatUuid(inherited.from.uuid), snapshot });
    log.info({ volume: newName, source: name, snapshot }, 'cloned');
    return result;
  }

  /** What a clone takes over: the DEKs that the snapshot is under, and the newest one, whose key will wrap its own. */
  async #inheritedOf(name: string, source: PinnedVolume): Promise<Inherited> {
    let inherited: Inherited | undefined;
    await this.#options.volumes.lookAt(name, (volume) => {
      return volume.withHeader(async ({ superblock, deks: handles }) => {
        const needed = new Set(source.segments().map((segment) => segment.dekId));
        needed.add(newestDek(superblock)?.id ?? 0);
        const { suite } = superblock;
        inherited = {
          ...{ sizeBytes: source.sizeBytes, suite, plain: suite !== 0 && needed.has(0), from: superblock },
          ...{ deks: superblock.deks.filter((dek) => needed.has(dek.id)), handles: new Map(handles) },
        };
      });
    });
    if (inherited === undefined) throw new SealbdError('NOT_FOUND', `no volume "${name}"`);
    return inherited;
  }

  /** The directory gets the volume's name when all of it is durable; until then a crash leaves what the next start erases. */
  async #make(name: string, inherited: Inherited, by: Actor, fill: Fill): Promise<VerifyResult> {
    const { files, volumes, providers, clock, random } = this.#options;
    const to = inherited.deks.map(({ keyUri }) => keyUri).at(-1) ?? 'no key';
    return volumes.keysUnderWay.during({ volume: name, to }, async () => {
      const temporary = await files.makeTemporary(name);
      let result: VerifyResult;
      try {
        const store = await FsStore.open(temporary);
        const header = await writeRestoredHeader({ ...inherited, store, providers, clock, random });
        try {
          this.#assertPinned(name, header.superblock);
          result = await fill(store, header);
        } finally {
          header.release();
        }
      } catch (error) {
        await files.discardTemporary(temporary);
        throw error;
      }
      await this.#publish(name, temporary, by);
      return result;
    });
  }

  async #publish(name: string, temporary: string, by: Actor): Promise<void> {
    const { files, volumes } = this.#options;
    let published = false;
    try {
      await volumes.adopt(name, by, async () => {
        await files.publish(temporary, name);
        published = true;
      });
    } catch (error) {
      if (!published) await files.discardTemporary(temporary);
      throw error;
    }
  }

  /** What the configuration says of a volume of that name holds for one that is restored, too. */
  #assertAllowed(
    name: string,
    { sizeBytes, suite, deks }: { sizeBytes: number; suite: 0 | 1 | 2; deks: readonly { keyUri: string }[] },
  ): void {
    const { pins, volumes } = this.#options;
    const cipher = suiteName(suite);
    const uris = suite === 0 ? [undefined] : [...new Set(deks.map((dek) => dek.keyUri))];
    for (const keyUri of uris) resolveKeyUri({ name, sizeBytes, cipher, keyUri }, pins.get(name));
    volumes.assertFree(name);
  }

  /** Where an alias leads elsewhere by now the new superblock names the key itself, and would not open under a pinned alias. */
  #assertPinned(name: string, { deks }: Superblock): void {
    const pinned = this.#options.pins.get(name)?.keyUris;
    const other = deks.find(({ keyUri }) => pinned !== undefined && !pinned.includes(keyUri));
    if (other === undefined) return;
    const wanted = `the configuration pins the key of "${name}" to ${pinned!.join(' or ')}`;
    throw new SealbdError(
      'CONFLICT',
      `${wanted}, which is not what wraps DEK ${other.id} any more: that is ${other.keyUri}; pin it too, or restore under another name`,
    );
  }

  /** Without its reserve the volume would open, and fail on the first full disk. */
  async #assertRoom(blocks: number, sizeBytes: number): Promise<void> {
    const { files, reserveBytes } = this.#options;
    const { bavail, bsize } = await statfs(files.pathOf('.'));
    const reserve = reserveBytes(sizeBytes);
    const [needed, free] = [blocks * SLOT_BYTES + reserve, bavail * bsize];
    if (needed <= free) return;
    const takes = `it takes ${formatSize(needed)}, ${formatSize(reserve)} of them kept in reserve`;
    throw new SealbdError('ENOSPC', `${takes}, and ${formatSize(free)} are free`);
  }

  #record(
    event: 'restore' | 'clone',
    name: string,
    by: Actor,
    of: Pick<VolumeEvent, 'path' | 'source' | 'snapshot'>,
  ) {
    const { volumes, record } = this.#options;
    const superblock = volumes.find(name)?.superblock;
    record({
      event,
      volume: name,
      uuid: superblock === undefined ? null : formatUuid(superblock.uuid),
      by,
      ...of,
    });
  }
}

function plaintextUnasked(path: string): SealbdError {
  const why = `${path} says that its volume had the cipher none, and anybody can make such a backup`;
  return new SealbdError('CONFLICT', `${why}: where that is what it should be, --plaintext restores it`);
}

function plainUnasked(path: string): SealbdError {
  const why = `${path} was made before all of its volume was encrypted: what is in plaintext proves nothing`;
  return new SealbdError(
    'CONFLICT',
    `${why}, and is on this disk until it is rewritten; --plaintext restores it`,
  );
}

function protectionOf(superblock: Superblock): NonNullable<VerifyResult['restored']> {
  const { keyUri = null, resolvedKeyId = null } = newestDek(superblock) ?? {};
  return { cipher: suiteName(superblock.suite), keyUri, resolvedKeyId };
}
