/** `backup create`: a job that copies a cut of a volume, as ciphertext, into a directory. */
import { isAbsolute, resolve } from 'node:path';
import type { JobInfo } from '../admin/schemas.js';
import { type BackupDirectory, openChain } from '../backup/backup-directory.js';
import { type ChainKeys, chainDeks, openChainKeys } from '../backup/chain-keys.js';
import { assertMayGrow, type ChainLimits } from '../backup/chain-limits.js';
import { assertClaimable } from '../backup/claim.js';
import { type BackupLedger, type CreatedBackup, createBackup, type VolumeFacts } from '../backup/create.js';
import { type Clock, sleep } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { formatUuid, type RandomSource } from '../base/random.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { DekRecord } from '../keys/dek-record.js';
import { type LentKeys, lendKeys } from '../keys/dek-ring.js';
import type { JobControl, JobKeys } from '../keys/job-keys.js';
import { newestDek } from '../keys/superblock.js';
import type { VolumeHeader } from '../keys/volume-header.js';
import type { KeyProviders } from '../kms/registry.js';
import type { BackupFiles } from './backup-files.js';
import { assertOutside, makeTarget } from './backup-target.js';
import type { EngineVolume } from './engine.js';
import type { Jobs } from './jobs.js';
import type { KnownBackups } from './known-backups.js';
import { openDevice } from './open-device.js';
import type { Actor, VolumeEvent } from './volume-events.js';
import type { VolumeManager } from './volume-manager.js';

export interface BackupsOptions {
  readonly volumes: VolumeManager;
  readonly jobs: Jobs;
  readonly jobKeys: JobKeys;
  readonly providers: KeyProviders;
  readonly cipher: CipherPool;
  readonly known: KnownBackups;
  readonly backupFiles: BackupFiles;
  /** Of the volumes: no place for a backup. */
  readonly volumesPath: string;
  /** Lower in tests. */
  readonly chainLimits?: ChainLimits | undefined;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
  record(event: VolumeEvent): void;
}

export interface BackupRequest {
  readonly path: string;
  readonly base?: string | undefined;
  readonly salvage: boolean;
}

/** Idle time for each unit of work while clients are active: a backup then takes a third of what it could. */
const FOREGROUND_STRETCH = 2;

interface Base {
  readonly chain: readonly BackupDirectory[];
  readonly keys: ChainKeys;
  readonly path: string;
}

export class Backups {
  readonly #options: BackupsOptions;

  constructor(options: BackupsOptions) {
    this.#options = options;
  }

  /** USAGE or CONFLICT where that can't be its place, or its base takes no more; KEY_UNAVAILABLE where its base can't be opened, and so not restored. */
  async create(name: string, request: BackupRequest, by: Actor): Promise<JobInfo> {
    const { volumes, jobs, jobKeys } = this.#options;
    openDevice(volumes.get(name));
    const path = await this.#placeOf(request.path, request.base);
    const base = request.base === undefined ? undefined : await this.#base(request.base);
    try {
      return await this.#inTurn(name, () =>
        jobs.start('backup', name, (control) => {
          const run = (guarded: JobControl) => this.#run(name, path, base, request.salvage, guarded, by);
          if (base === undefined) return run(control);
          const held = { ...base.keys, deks: chainDeks(base.chain), uuid: base.chain[0].manifest.uuid };
          return jobKeys.during(`backup ${name}`, control, held, run);
        }),
      );
    } catch (error) {
      base?.keys.release();
      throw error;
    }
  }

  /** Between the operations on the volume: one that stops it has then ended, or finds the job to be aborted. */
  async #inTurn(name: string, start: () => JobInfo): Promise<JobInfo> {
    const job = await this.#options.volumes.lookAt(name, async (volume) => {
      openDevice(volume);
      return start();
    });
    if (job === undefined) throw new SealbdError('NOT_FOUND', `no volume "${name}"`);
    return job;
  }

  async #placeOf(path: string, base: string | undefined): Promise<string> {
    if (!isAbsolute(path)) throw new SealbdError('USAGE', `${path}: expected an absolute path`);
    const full = resolve(path);
    const { volumesPath, backupFiles } = this.#options;
    await backupFiles.run(full, () => assertOutside(volumesPath, full));
    if (base !== undefined && resolve(base) === full)
      throw new SealbdError('USAGE', 'a backup can not be its own base');
    await assertClaimable(backupFiles.at(full));
    return full;
  }

  async #base(given: string): Promise<Base> {
    const path = resolve(given);
    const chain = await openChain(path, (at) => this.#options.backupFiles.at(at));
    assertMayGrow(chain, this.#options.chainLimits);
    return { chain, keys: await openChainKeys(chain, this.#options.providers), path };
  }

  async #run(
    name: string,
    path: string,
    base: Base | undefined,
    salvage: boolean,
    control: JobControl,
    by: Actor,
  ) {
    const { volumes, cipher, random, clock, known, log, record, backupFiles } = this.#options;
    const device = openDevice(volumes.get(name));
    await known.leaveTo(path);
    const to = backupFiles.gated(
      await backupFiles.run(path, () => makeTarget(this.#options.volumesPath, path)),
    );
    const lent = await this.#withHeader(name, device, keysOf);
    try {
      const source = await device.pin();
      let created: CreatedBackup;
      try {
        created = await createBackup({
          ...control,
          ...(this.#options.chainLimits && { limits: this.#options.chainLimits }),
          ...{ source, to, salvage, cipher, random, ledger: this.#ledger(path, base) },
          from: volumes.get(name).store,
          base: base && { chain: base.chain, keys: base.keys.handles, path: base.path },
          keys: lent.handles,
          facts: () => this.#withHeader(name, device, (header) => factsOf(name, header)),
          now: () => clock.monotonic(),
          pace: paceOf(device, clock),
        });
      } finally {
        await source.release();
      }
      const { manifest, lostSlots } = created;
      record({ event: 'backup', volume: name, uuid: formatUuid(manifest.uuid), by, path });
      log.info({ volume: name, path, slots: manifest.slots, sequence: manifest.sequence }, 'backed up');
      const problems = lostSlots === 0 ? [] : [`${lostSlots} blocks are lost, and so they are in the backup`];
      return { checkedBlocks: manifest.slots, lost: [], problems };
    } finally {
      lent.release();
    }
  }

  /** What is noted of it for `key usage`: the DEKs that it may need, then those that it and its base do. */
  #ledger(path: string, base: Base | undefined): BackupLedger {
    const { known, clock } = this.#options;
    const older = base === undefined ? [] : chainDeks(base.chain);
    const withOlder = (deks: readonly DekRecord[]) => [
      ...new Map([...older, ...deks].map((dek) => [dek.id, dek])).values(),
    ];
    let backupUuid: Uint8Array | undefined;
    return {
      begun: ({ uuid, name, deks }) => {
        return known.begun(path, { uuid, name, createdAt: clock.now() }, withOlder(deks));
      },
      complete: (manifest) => {
        backupUuid = manifest.backupUuid;
        return known.note(path, manifest, withOlder(manifest.deks));
      },
      cleared: () => known.dropped(path, backupUuid),
      ended: () => known.ended(path),
    };
  }

  /** In its turn among the operations on the volume, as long as it is open as it was. */
  async #withHeader<T>(name: string, device: EngineVolume, use: (header: VolumeHeader) => T): Promise<T> {
    const result = await this.#options.volumes.lookAt(name, async (volume) => {
      if (volume.device !== device) return undefined;
      let value: { readonly of: T } | undefined;
      await volume.withHeader(async (header) => {
        value = { of: use(header) };
      });
      return value;
    });
    if (result === undefined) throw new SealbdError('ESHUTDOWN', `volume "${name}" was closed meanwhile`);
    return result.of;
  }
}

function keysOf({ superblock, deks }: VolumeHeader): LentKeys {
  return lendKeys(deks, superblock.plain || superblock.activeDek === 0);
}

function factsOf(name: string, { superblock }: VolumeHeader): VolumeFacts {
  const { suite, plain, uuid, origins, deks } = superblock;
  return { suite, plain, uuid, origins, deks, name, dekId: newestDek(superblock)?.id ?? 0 };
}

/** Gives way while clients are active. */
function paceOf(device: EngineVolume, clock: Clock): (startedAt: number) => Promise<void> {
  let { requests } = device.stats();
  return async (startedAt) => {
    const now = device.stats().requests;
    const isBusy = now !== requests;
    requests = now;
    if (isBusy) await sleep(clock, (clock.monotonic() - startedAt) * FOREGROUND_STRETCH);
  };
}
